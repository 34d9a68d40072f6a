package meter

import (
	"bytes"
	"fmt"
	"os"
)

// Keys may have this many bytes.
const (
	minKey = 16
	maxKey = 64
)

// ReadKey reads a pre-shared key from a file.
func ReadKey(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("psk_file: %w; wattctl meter provision makes one", err)
	}
	key, err := ParseKey(b)
	if err != nil {
		return nil, fmt.Errorf("psk_file %s: %w", path, err)
	}
	return key, nil
}

// ParseKey returns the key in a key file: its bytes without a newline at its end.
func ParseKey(b []byte) ([]byte, error) {
	key := bytes.TrimRight(b, "\r\n")
	if len(key) < minKey || len(key) > maxKey {
		return nil, fmt.Errorf("%d bytes of key; it must have %d to %d; wattctl meter provision makes one", len(key), minKey, maxKey)
	}
	return key, nil
}
