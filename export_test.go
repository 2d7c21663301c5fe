package authkit

// SealSession returns the cookie header of a browser that has this session,
// which the callback would have sealed, for tests that need sessions no callback
// would make.
func (k *Kit) SealSession(auth *Authentication) (string, error) {
	parts, err := k.cookies.sealSession(auth)
	header := ""
	for i, part := range parts {
		header += k.cookies.partName(i) + "=" + part + "; "
	}
	return header, err
}
