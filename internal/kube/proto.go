package kube

import (
	"encoding/binary"
	"errors"
)

// Protocol buffers, as far as the messages of the CRI that are read need them (https://protobuf.dev/programming-guides/encoding/).

var errProto = errors.New("not the message that was asked for")

// fields calls each for every field of a message: text for those with a length, number for varints; others are skipped.
func fields(b []byte, each func(field uint64, text []byte, number uint64) error) error {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 || key>>3 == 0 {
			return errProto
		}
		b = b[n:]
		var text []byte
		var number uint64
		switch key & 7 {
		case 0:
			if number, n = binary.Uvarint(b); n <= 0 {
				return errProto
			}
		case 1:
			n = 8
		case 2:
			length, m := binary.Uvarint(b)
			if m <= 0 || length > uint64(len(b)-m) {
				return errProto
			}
			n = m + int(length)
			text = b[m:n]
		case 5:
			n = 4
		default:
			return errProto
		}
		if n > len(b) {
			return errProto
		}
		b = b[n:]
		if key&7 == 0 || key&7 == 2 {
			if err := each(key>>3, text, number); err != nil {
				return err
			}
		}
	}
	return nil
}

// readEntry reads an entry of a map of strings.
func readEntry(b []byte) (key, value string, err error) {
	err = fields(b, func(field uint64, text []byte, _ uint64) error {
		switch field {
		case 1:
			key = string(text)
		case 2:
			value = string(text)
		}
		return nil
	})
	return key, value, err
}

// readSandboxes reads a ListPodSandboxResponse.
func readSandboxes(b []byte) (all []sandbox, err error) {
	err = fields(b, func(field uint64, text []byte, _ uint64) error {
		if field != 1 {
			return nil
		}
		s, err := readSandbox(text)
		all = append(all, s)
		return err
	})
	return all, err
}

func readSandbox(b []byte) (sandbox, error) {
	s := sandbox{labels: map[string]string{}, ready: true} // SANDBOX_READY is 0, which is not written
	err := fields(b, func(field uint64, text []byte, number uint64) error {
		switch field {
		case 1:
			s.id = string(text)
		case 2:
			return fields(text, func(field uint64, text []byte, number uint64) error {
				switch field {
				case 1:
					s.name = string(text)
				case 2:
					s.uid = string(text)
				case 3:
					s.namespace = string(text)
				case 4:
					s.attempt = number
				}
				return nil
			})
		case 3:
			s.ready = number == 0
		case 4:
			s.created = number
		case 5:
			key, value, err := readEntry(text)
			s.labels[key] = value
			return err
		case 6:
			key, value, err := readEntry(text)
			if key == "kubernetes.io/config.hash" {
				s.hash = value
			}
			return err
		}
		return nil
	})
	if err == nil && (s.id == "" || s.uid == "") {
		err = errProto
	}
	return s, err
}

// readContainers reads a ListContainersResponse.
func readContainers(b []byte) (all []container, err error) {
	const running = 1
	err = fields(b, func(field uint64, text []byte, _ uint64) error {
		if field != 1 {
			return nil
		}
		var k container
		err := fields(text, func(field uint64, text []byte, number uint64) error {
			switch field {
			case 1:
				k.id = string(text)
			case 2:
				k.sandbox = string(text)
			case 3:
				return fields(text, func(field uint64, text []byte, number uint64) error {
					switch field {
					case 1:
						k.name = string(text)
					case 2:
						k.attempt = number
					}
					return nil
				})
			case 6:
				k.running = number == running
			}
			return nil
		})
		all = append(all, k)
		return err
	})
	return all, err
}

// statusRequest is a PodSandboxStatusRequest.
func statusRequest(id string) []byte {
	b := binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(id)))
	return append(b, id...)
}

// readStatusIP reads the address from a PodSandboxStatusResponse; one on the node's network has none.
func readStatusIP(b []byte) (ip string, err error) {
	err = fields(b, func(field uint64, text []byte, _ uint64) error {
		if field != 1 {
			return nil
		}
		return fields(text, func(field uint64, text []byte, _ uint64) error {
			if field != 5 { // network
				return nil
			}
			return fields(text, func(field uint64, text []byte, _ uint64) error {
				if field == 1 {
					ip = string(text)
				}
				return nil
			})
		})
	})
	return ip, err
}
