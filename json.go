package authkit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxMembers bounds the members of one JSON object, so that finding duplicates
// by comparison stays cheap whatever is sent.
const maxMembers = 512

// eachMember calls visit for every member of the one JSON object that b is, in
// order. Unlike encoding/json it refuses duplicate members at any depth and
// invalid UTF-8, and matches names exactly: two parsers must not read two
// different tokens (RFC 7515, section 4; RFC 8725, section 2.4).
func eachMember(b []byte, visit func(name string, value []byte) error) error {
	if !utf8.Valid(b) || !json.Valid(b) {
		return errors.New("not JSON in UTF-8")
	}
	s := jsonScanner{b: b}
	if s.peek() != '{' {
		return errors.New("not a JSON object")
	}
	return s.object(visit)
}

// jsonScanner walks over JSON whose syntax is known to be valid.
type jsonScanner struct {
	b []byte
	i int
}

// peek returns the first byte that is not white space.
func (s *jsonScanner) peek() byte {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return s.b[s.i]
		}
	}
	return 0
}

// accept steps over c if it comes next.
func (s *jsonScanner) accept(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.i++
	return true
}

func (s *jsonScanner) object(visit func(name string, value []byte) error) error {
	var names []string

	s.accept('{')
	for !s.accept('}') {
		s.accept(',')
		name, err := s.name()
		if err != nil {
			return err
		}
		for _, earlier := range names {
			if earlier == name {
				return errors.New("a duplicate member")
			}
		}
		if names = append(names, name); len(names) > maxMembers {
			return fmt.Errorf("more than %d members", maxMembers)
		}

		s.accept(':')
		s.peek()
		start := s.i
		if err := s.value(); err != nil {
			return err
		}
		if visit == nil {
			continue
		}
		if err := visit(name, s.b[start:s.i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *jsonScanner) name() (string, error) {
	s.peek()
	start := s.i
	s.str()
	raw := s.b[start:s.i]
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	var name string
	err := json.Unmarshal(raw, &name)
	return name, err
}

// value steps over one value, looking for duplicates in the objects inside.
func (s *jsonScanner) value() error {
	switch s.peek() {
	case '{':
		return s.object(nil)
	case '[':
		s.accept('[')
		for !s.accept(']') {
			s.accept(',')
			if err := s.value(); err != nil {
				return err
			}
		}
	case '"':
		s.str()
	default: // a number, true, false or null
		for s.i < len(s.b) && strings.IndexByte(",]} \t\n\r", s.b[s.i]) < 0 {
			s.i++
		}
	}
	return nil
}

// str steps over a string.
func (s *jsonScanner) str() {
	for s.i++; s.b[s.i] != '"'; s.i++ {
		if s.b[s.i] == '\\' {
			s.i++
		}
	}
	s.i++
}
