package main

import (
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/wattlet/wattlet/internal/meter"
)

// keyFlags name the pre-shared key of a meter.
type keyFlags struct {
	PSKIdentity string `name:"psk-identity" default:"wattlet" help:"Identity of the key."`
	PSKFile     string `name:"psk-file" type:"path" placeholder:"FILE" help:"File with the key; wattctl meter provision makes one."`
}

// key reads the key: the bytes of the file without a newline at its end. No file is no key.
func (k keyFlags) key() ([]byte, error) {
	if k.PSKFile == "" {
		return nil, nil
	}
	key, err := meter.ReadKey(k.PSKFile)
	if err != nil {
		return nil, usageError{err}
	}
	return key, nil
}

// endpoint returns the meter with this URL and key, checked but not contacted.
func (k keyFlags) endpoint(url string) (meter.Endpoint, error) {
	key, err := k.key()
	if err != nil {
		return meter.Endpoint{}, err
	}
	if key == nil && strings.HasPrefix(url, "coaps:") {
		return meter.Endpoint{}, usagef("%s needs a key: give --psk-file; wattctl meter provision makes one", url)
	}
	if err := checkEndpoint(url, key); err != nil {
		return meter.Endpoint{}, usageError{err}
	}
	return meter.Endpoint{URL: url, Identity: k.PSKIdentity, Key: key}, nil
}

// checkEndpoint says what is wrong with a meter's URL.
func checkEndpoint(url string, key []byte) error {
	_, err := meter.New(meter.Config{Endpoint: meter.Endpoint{URL: url, Key: key}})
	return err
}

// keyLength fits the 32 bytes that mbedTLS takes for a pre-shared key by default (MBEDTLS_PSK_MAX_LEN).
const keyLength = 32

// newKey returns a key of 190 random bits, in letters and digits only, so that it can be typed, shown on a display, and
// given to other CoAP clients as an argument.
func newKey() ([]byte, error) {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	const fair = 256 / len(letters) * len(letters) // bytes from here on would favour the first letters
	key := make([]byte, 0, keyLength)
	buf := make([]byte, 2*keyLength)
	for {
		if _, err := rand.Read(buf); err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		for _, b := range buf {
			if int(b) >= fair {
				continue
			}
			if key = append(key, letters[int(b)%len(letters)]); len(key) == keyLength {
				return key, nil
			}
		}
	}
}
