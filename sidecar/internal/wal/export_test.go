package wal

// ChecksumBases lets a test compute checksums the plain way.
func ChecksumBases() [checksumLanes]uint32 { return checksumBases() }
