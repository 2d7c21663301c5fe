package authkit

import (
	"hash/maphash"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// memory is a bounded map whose entries end: the least recently used one when it
// is full, each one at its time. It starts no goroutine; what has ended is
// dropped when it is looked up or crowded out.
//
// Entries are found by their whole key, never by a digest of it.
type memory[V any] struct {
	shards []*lru.Cache[string, entry[V]]
	seed   maphash.Seed
}

type entry[V any] struct {
	value V
	until time.Time
}

// newMemory returns a memory for about size entries, or one that forgets
// everything if size is not positive. Shards are locked one by one: one is
// enough where requests do not contend.
func newMemory[V any](size, shards int) *memory[V] {
	m := &memory[V]{seed: maphash.MakeSeed()}
	if size <= 0 {
		return m
	}
	for range shards {
		shard, err := lru.New[string, entry[V]]((size + shards - 1) / shards)
		if err != nil {
			panic("authkit: " + err.Error()) // the size is positive
		}
		m.shards = append(m.shards, shard)
	}
	return m
}

func (m *memory[V]) get(key string) (V, bool) {
	var none V
	if len(m.shards) == 0 {
		return none, false
	}
	shard := m.shard(key)
	e, ok := shard.Get(key)
	if !ok {
		return none, false
	}
	if !time.Now().Before(e.until) {
		shard.Remove(key)
		return none, false
	}
	return e.value, true
}

func (m *memory[V]) put(key string, value V, until time.Time) {
	if len(m.shards) == 0 {
		return
	}
	m.shard(key).Add(key, entry[V]{value, until})
}

func (m *memory[V]) drop(key string) {
	if len(m.shards) > 0 {
		m.shard(key).Remove(key)
	}
}

// shard picks by the key's last bytes: where cookies and tokens differ.
func (m *memory[V]) shard(key string) *lru.Cache[string, entry[V]] {
	if len(m.shards) == 1 {
		return m.shards[0]
	}
	tail := key[max(0, len(key)-32):]
	return m.shards[maphash.String(m.seed, tail)%uint64(len(m.shards))]
}
