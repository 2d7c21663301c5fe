package authkit

import (
	"context"
	"crypto/rsa"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

const (
	keySetTimeout  = 5 * time.Second // one fetch
	keySetFreshFor = time.Hour       // then fetched in the background
	keySetUsable   = 24 * time.Hour  // then not used without a fetch
	keySetRetry    = time.Second     // after a failure
)

// How young a key set must be for a key id that it lacks to count as unknown. A
// token that WorkOS has just issued may be the first with a new key; one that a
// browser brings may have been made up to have us fetch.
const (
	maxKeySetAgeIssued  = 0
	maxKeySetAgeBrought = 30 * time.Second
)

// keySet keeps the public keys of the client, as WorkOS serves them.
//
// What requests read is an immutable snapshot: a fetch that hangs or fails
// delays nobody whose key is known. Fetches are joined, end by themselves, and
// leave no goroutine behind.
type keySet struct {
	fetch  func(context.Context) ([]byte, error)
	logger *slog.Logger

	current atomic.Pointer[keys]

	mu       sync.Mutex   // guards what follows; never held during a fetch
	inFlight *keySetFetch // nil: none
	failure  error        // of the last fetch, nil after a success
	failedAt time.Time
}

// keys is a snapshot of the key set.
type keys struct {
	byID       map[string]*rsa.PublicKey
	fetchedAt  time.Time
	generation uint64 // counts changes of the keys, from 1
}

func (k *keys) age() time.Duration { return time.Since(k.fetchedAt) }

type keySetFetch struct {
	done chan struct{} // closed when err is set
	err  error
}

// wait waits for the fetch to end, no longer than ctx allows.
func (f *keySetFetch) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return unavailable(context.Cause(ctx))
	}
}

// find returns the key of that id. It fetches the key set where it must, and
// waits for that no longer than ctx allows: for the first keys, after a day
// without a fetch, and for an id that a set older than maxAge lacks. The error
// is errUnknownKey if no such key exists, else ErrUnavailable.
func (s *keySet) find(ctx context.Context, id string, maxAge time.Duration) (*rsa.PublicKey, error) {
	snapshot, err := s.usable(ctx)
	if err != nil {
		return nil, err
	}
	if key := snapshot.byID[id]; key != nil {
		return key, nil
	}

	if snapshot.age() >= maxAge {
		if err := s.update(ctx, snapshot); err != nil {
			return nil, err
		}
	}
	if key := s.current.Load().byID[id]; key != nil {
		return key, nil
	}
	return nil, errUnknownKey
}

// usable returns the current keys, fetched at most a day ago.
func (s *keySet) usable(ctx context.Context) (*keys, error) {
	snapshot := s.current.Load()
	if snapshot == nil || snapshot.age() > keySetUsable {
		if err := s.update(ctx, snapshot); err != nil {
			return nil, err
		}
		return s.current.Load(), nil
	}
	if snapshot.age() > keySetFreshFor {
		_, _ = s.join(ctx, snapshot)
	}
	return snapshot, nil
}

// generation tells the keys in use from those before them. It is 0 while there
// are none.
func (s *keySet) generation(ctx context.Context) uint64 {
	snapshot := s.current.Load()
	if snapshot == nil || snapshot.age() > keySetUsable {
		return 0
	}
	if snapshot.age() > keySetFreshFor {
		_, _ = s.join(ctx, snapshot)
	}
	return snapshot.generation
}

// update waits until there are keys newer than those seen.
func (s *keySet) update(ctx context.Context, seen *keys) error {
	f, err := s.join(ctx, seen)
	if f == nil {
		return err
	}
	return f.wait(ctx)
}

// join returns the fetch in flight, or begins one. It returns nil if there is
// nothing to wait for: newer keys than those seen have come, or a fetch has
// failed just now.
func (s *keySet) join(ctx context.Context, seen *keys) (*keySetFetch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.current.Load() != seen {
		return nil, nil
	}
	if s.inFlight != nil {
		return s.inFlight, nil
	}
	if s.failure != nil && time.Since(s.failedAt) < keySetRetry {
		return nil, s.failure
	}
	s.inFlight = &keySetFetch{done: make(chan struct{})}
	// Whoever began the fetch may leave: others wait for it.
	go s.run(context.WithoutCancel(ctx), s.inFlight)
	return s.inFlight, nil
}

func (s *keySet) run(ctx context.Context, f *keySetFetch) {
	defer recovered(new(error)) // the application's log handler runs last
	byID, err := s.load(ctx)
	s.finish(f, byID, err)
	if err != nil {
		s.logger.WarnContext(ctx, "authkit: cannot fetch the key set", "reason", "key_set_unavailable", "error", err)
	}
}

// finish makes the outcome of a fetch known.
func (s *keySet) finish(f *keySetFetch, byID map[string]*rsa.PublicKey, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if err != nil {
		err = unavailable(err)
	} else {
		s.replace(byID)
	}
	s.inFlight, s.failure, s.failedAt = nil, err, time.Now()
	f.err = err
	close(f.done)
}

func (s *keySet) load(ctx context.Context) (byID map[string]*rsa.PublicKey, err error) {
	defer recovered(&err)
	ctx, cancel := context.WithTimeout(ctx, keySetTimeout)
	defer cancel()

	body, err := s.fetch(ctx)
	if err != nil {
		return nil, err
	}
	return parseKeySet(body)
}

// replace makes the fetched keys current.
func (s *keySet) replace(byID map[string]*rsa.PublicKey) {
	next := &keys{byID: byID, fetchedAt: time.Now(), generation: 1}
	if before := s.current.Load(); before != nil {
		next.generation = before.generation
		if !maps.EqualFunc(before.byID, byID, equalKeys) {
			next.generation++
		}
	}
	s.current.Store(next)
}

func equalKeys(a, b *rsa.PublicKey) bool { return a.Equal(b) }
