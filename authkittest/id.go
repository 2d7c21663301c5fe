package authkittest

import (
	"crypto/rand"
	"encoding/binary"
	"time"
)

// newID returns prefix and a ULID: 48 bits of time in milliseconds and 80 random
// bits, in 26 characters of Crockford's base32, so that ids sort by age
// (https://github.com/ulid/spec).
func newID(prefix string) string {
	const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(time.Now().UnixMilli())<<16)
	rand.Read(b[6:])
	high, low := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])

	var id [26]byte
	for i := len(id) - 1; i >= 0; i-- {
		id[i] = alphabet[low&31]
		low = low>>5 | high<<59
		high >>= 5
	}
	return prefix + string(id[:])
}
