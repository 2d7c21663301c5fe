package authkit

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// packVersion is the first byte of what a session cookie seals. Version 1 is:
//
//	1 byte   the version
//	uvarint  length of the refresh token, and its bytes
//	uvarint  length of the access token's signature, and its bytes
//	DEFLATE  (RFC 1951), with the preset dictionary packDictionary, of
//	         uvarint  length of the access token's header, and its JSON
//	         uvarint  length of the access token's payload, and its JSON
//	         the user and how they signed in, as the JSON of identity
//
// The secrets stay outside the compressed part, so that its length says nothing
// about them (RFC 8725, section 3.6). The dictionary is part of the version:
// changing a byte of it is a new version, which must open the old one too.
const packVersion = 1

// maxUnpacked bounds the inflated part, in bytes.
const maxUnpacked = 64 << 10

// packDictionary holds what every session repeats, the most frequent last, where
// the distances are shortest.
const packDictionary = `SSO","Password","Passkey","MagicAuth","Impersonation","MigratedSession","AppleOAuth","GitHubOAuth","MicrosoftOAuth","GoogleOAuth"` +
	`,"act":{"sub":""},"nbf":,"aud":"","feature_flags":[""],"entitlements":["audit-logs","` +
	`https://lh3.googleusercontent.com/a/https://avatars.githubusercontent.com/u/https://workoscdn.com/images/v1/` +
	`.com","@gmail.com","false,"metadata":{"locale":"en-GB","locale":"en-US"` +
	`:manage","users:","members:","billing:","settings:","projects:","reports:` +
	`:create",":update",":delete",":view",":write",":read","permissions":["` +
	`"role":"owner","role":"viewer","role":"admin","role":"member","roles":["admin","roles":["member"],` +
	`{"alg":"RS256","typ":"JWT","kid":"{"alg":"RS256","kid":"sso_oidc_key_pair_01","typ":"JWT"}` +
	`{"iss":"https://api.workos.com/user_management/client_01","iss":"https://api.workos.com",` +
	`"client_id":"client_01","auth_time":17,"exp":17,"iat":17,"jti":"01,"org_id":"org_01,"sid":"session_01,"sub":"user_01` +
	`{"user":{"id":"user_01","email":"@","email_verified":true,"first_name":"","last_name":"","name":"` +
	`","profile_picture_url":"https://","external_id":"","last_sign_in_at":"2026-` +
	`T00:00:00.000Z","created_at":"2025-","updated_at":"2026-"},"impersonator":{"email":"","reason":""},"authentication_method":"`

// identity is what a session cookie holds beside the tokens.
type identity struct {
	User                 User          `json:"user"`
	AuthenticationMethod string        `json:"authentication_method,omitempty"`
	Impersonator         *Impersonator `json:"impersonator,omitempty"`
}

// Compressors are large (more than half a megabyte) and keep their dictionary
// when they are reset.
var (
	deflaters = sync.Pool{New: func() any {
		w, err := flate.NewWriterDict(io.Discard, flate.BestCompression, []byte(packDictionary))
		if err != nil {
			panic("authkit: " + err.Error()) // the level is valid
		}
		return w
	}}
	inflaters = sync.Pool{New: func() any {
		return flate.NewReaderDict(nil, []byte(packDictionary))
	}}
)

// pack encodes what WorkOS said of a user for the session cookie.
func pack(auth *Authentication) ([]byte, error) {
	header, payload, signature, err := decodeToken(auth.AccessToken)
	if err != nil {
		return nil, err
	}
	person, err := json.Marshal(identity{auth.User, auth.AuthenticationMethod, auth.Impersonator})
	if err != nil {
		return nil, err
	}

	var plain []byte
	plain = appendSized(plain, header)
	plain = appendSized(plain, payload)
	plain = append(plain, person...)
	if len(plain) > maxUnpacked {
		return nil, tooLarge(auth, fmt.Sprintf("%d bytes, want at most %d", len(plain), maxUnpacked))
	}

	packed := []byte{packVersion}
	packed = appendSized(packed, []byte(auth.RefreshToken))
	packed = appendSized(packed, signature)
	return deflate(packed, plain)
}

// unpack decodes what pack encoded. It is only given what our own key sealed,
// and still trusts none of it: a replica of another version may have sealed it.
func unpack(packed []byte) (*Authentication, error) {
	if len(packed) == 0 || packed[0] != packVersion {
		return nil, errors.New("a session of another version")
	}
	refreshToken, rest, ok := cutSized(packed[1:])
	if !ok {
		return nil, errTruncated
	}
	signature, rest, ok := cutSized(rest)
	if !ok {
		return nil, errTruncated
	}
	plain, err := inflate(rest)
	if err != nil {
		return nil, err
	}
	header, rest, ok := cutSized(plain)
	if !ok {
		return nil, errTruncated
	}
	payload, rest, ok := cutSized(rest)
	if !ok {
		return nil, errTruncated
	}
	var person identity
	if err := json.Unmarshal(rest, &person); err != nil {
		return nil, fmt.Errorf("unpack session: %w", err)
	}

	base64url := base64.RawURLEncoding
	return &Authentication{
		User:                 person.User,
		AccessToken:          base64url.EncodeToString(header) + "." + base64url.EncodeToString(payload) + "." + base64url.EncodeToString(signature),
		RefreshToken:         string(refreshToken),
		AuthenticationMethod: person.AuthenticationMethod,
		Impersonator:         person.Impersonator,
	}, nil
}

var errTruncated = errors.New("a truncated session")

// appendSized appends the length of field and field itself.
func appendSized(b, field []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(field)))
	return append(b, field...)
}

// cutSized is the reverse of appendSized.
func cutSized(b []byte) (field, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(size)], b[n+int(size):], true
}

func deflate(dst, plain []byte) ([]byte, error) {
	buf := bytes.NewBuffer(dst)
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	w.Reset(buf)
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func inflate(compressed []byte) ([]byte, error) {
	r := inflaters.Get().(io.ReadCloser)
	defer inflaters.Put(r)
	if err := r.(flate.Resetter).Reset(bytes.NewReader(compressed), []byte(packDictionary)); err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxUnpacked+1))
	if err != nil {
		return nil, fmt.Errorf("inflate session: %w", err)
	}
	if len(plain) > maxUnpacked {
		return nil, errors.New("a session that inflates to more than 64 KiB")
	}
	return plain, nil
}

// tooLarge says how large a session is, and what to make smaller.
func tooLarge(auth *Authentication, size string) error {
	name, length := largestPart(auth)
	return fmt.Errorf("%w: %s; its largest part is %s, %d bytes", ErrSessionTooLarge, size, name, length)
}

// largestPart names what takes the most room in a session, and its length in
// bytes: what to cut when the whole does not fit.
func largestPart(auth *Authentication) (name string, size int) {
	look := func(prefix string, object []byte) {
		_ = eachMember(object, func(member string, value []byte) error {
			if len(value) > size {
				name, size = prefix+plainCode(member, "(custom)"), len(value)
			}
			return nil
		})
	}
	if _, payload, _, err := decodeToken(auth.AccessToken); err == nil {
		look("the claim ", payload)
	}
	if user, err := json.Marshal(auth.User); err == nil {
		look("the user's ", user)
	}
	return name, size
}
