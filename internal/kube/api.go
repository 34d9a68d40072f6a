package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// apiPod is what is read of a pod's API object.
type apiPod struct {
	Metadata apiMetadata `json:"metadata"`
	Spec     struct {
		HostNetwork bool         `json:"hostNetwork"`
		Resources   apiResources `json:"resources"` // of the whole pod, since 1.34
		Containers  []struct {
			Resources apiResources `json:"resources"`
		} `json:"containers"`
		InitContainers []struct {
			RestartPolicy string       `json:"restartPolicy"` // Always: it runs beside the others
			Resources     apiResources `json:"resources"`
		} `json:"initContainers"`
	} `json:"spec"`
	Status struct {
		Phase      string `json:"phase"`
		PodIP      string `json:"podIP"`
		Conditions []struct {
			Type   string `json:"type"`
			Status string `json:"status"`
		} `json:"conditions"`
		ContainerStatuses []struct {
			ContainerID  string `json:"containerID"` // containerd://64 digits
			RestartCount int    `json:"restartCount"`
		} `json:"containerStatuses"`
	} `json:"status"`
}

type apiMetadata struct {
	UID             string            `json:"uid"`
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	ResourceVersion string            `json:"resourceVersion"`
	Deletion        string            `json:"deletionTimestamp"`
	Labels          map[string]string `json:"labels"`
	Annotations     struct {
		ConfigHash string `json:"kubernetes.io/config.hash"`
	} `json:"annotations"`
}

type apiResources struct {
	Requests struct {
		CPU cores `json:"cpu"`
	} `json:"requests"`
}

// cores is a quantity of CPU (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/): "250m", "0.5", 2.
// What cannot be read is not known, and costs no more than that.
type cores float64

// UnmarshalJSON implements json.Unmarshaler.
func (c *cores) UnmarshalJSON(b []byte) error {
	*c = cores(parseCores(strings.Trim(string(b), `"`)))
	return nil
}

// maxCores is more than any pod has reserved.
const maxCores = 1e6

func parseCores(s string) float64 {
	unit := 1.0
	if s != "" {
		switch s[len(s)-1] {
		case 'n':
			unit = 1e-9
		case 'u':
			unit = 1e-6
		case 'm':
			unit = 1e-3
		case 'k':
			unit = 1e3
		}
		if unit != 1 {
			s = s[:len(s)-1]
		}
	}
	v, err := strconv.ParseFloat(s, 64)
	if v *= unit; err != nil || !(v >= 0 && v <= maxCores) {
		return 0
	}
	return v
}

// pod returns what is kept of it. label is as in functionOf.
func (a *apiPod) pod(label string) Pod {
	m := &a.Metadata
	p := Pod{UID: m.UID, Namespace: m.Namespace, Name: m.Name, Function: functionOf(m.Labels, m.Name, label)}
	if m.Annotations.ConfigHash != "" {
		p.UID = m.Annotations.ConfigHash
	}
	if !a.Spec.HostNetwork {
		p.IP = a.Status.PodIP
	}
	for i := range a.Spec.Containers {
		p.CPURequest += float64(a.Spec.Containers[i].Resources.Requests.CPU)
	}
	for i := range a.Spec.InitContainers {
		if c := &a.Spec.InitContainers[i]; c.RestartPolicy == "Always" {
			p.CPURequest += float64(c.Resources.Requests.CPU)
		}
	}
	if whole := float64(a.Spec.Resources.Requests.CPU); whole > 0 {
		p.CPURequest = whole
	}
	p.Ended = a.Status.Phase == "Succeeded" || a.Status.Phase == "Failed"
	p.Leaving = p.Ended || m.Deletion != ""
	for _, c := range a.Status.Conditions {
		if c.Type == "Ready" {
			p.Ready = c.Status == "True"
		}
	}
	for i := range a.Status.ContainerStatuses {
		c := &a.Status.ContainerStatuses[i]
		p.Restarts += c.RestartCount
		if _, id, ok := strings.Cut(c.ContainerID, "://"); ok && id != "" {
			p.Containers = append(p.Containers, id)
		}
	}
	return p
}

// statusError is the API's word for what went wrong. Its field "status" is a string, where a pod's is an object: an event's type must be
// known before its object is read.
type statusError struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func (s statusError) Error() string {
	text := s.Message
	if text == "" {
		text = s.Reason
	}
	if len(text) > 300 {
		text = text[:300]
	}
	return fmt.Sprintf("code %d: %s", s.Code, strings.ToValidUTF8(strings.Join(strings.Fields(text), " "), "?"))
}

// apiEvent is one event of a watch.
type apiEvent struct {
	Type   string          `json:"type"`
	Object json.RawMessage `json:"object"`
}

// The types of events.
const (
	added    = "ADDED"
	modified = "MODIFIED"
	deleted  = "DELETED"
	bookmark = "BOOKMARK"
	failed   = "ERROR"
)

// change is what an event says: a pod that is there or gone, or, of a bookmark, nothing but the version.
type change struct {
	kind    string
	version string
	pod     Pod
}

// read makes a change of an event; the error is an statusError if it is one that the server tells.
func (e *apiEvent) read(label string) (change, error) {
	c := change{kind: e.Type}
	switch e.Type {
	case added, modified, deleted:
		var a apiPod
		if err := json.Unmarshal(e.Object, &a); err != nil {
			return c, fmt.Errorf("%s event: %w", e.Type, err)
		}
		c.version, c.pod = a.Metadata.ResourceVersion, a.pod(label)
		if c.pod.UID == "" || c.pod.Name == "" {
			return c, fmt.Errorf("%s event: a pod without UID or name", e.Type)
		}
		return c, nil
	case bookmark:
		var b struct {
			Metadata struct {
				ResourceVersion string `json:"resourceVersion"`
			} `json:"metadata"`
		}
		if err := json.Unmarshal(e.Object, &b); err != nil {
			return c, fmt.Errorf("%s event: %w", e.Type, err)
		}
		c.version = b.Metadata.ResourceVersion
		return c, nil
	case failed:
		return c, readStatus(e.Object)
	}
	return c, fmt.Errorf("an event of type %.40q", e.Type)
}

// readStatus reads what the server says went wrong.
func readStatus(b []byte) error {
	var s statusError
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("a status that cannot be read: %w", err)
	}
	return s
}

// readList calls each for every pod of a list, one after the other, so that never more than one is in memory.
func readList(r io.Reader, each func(*apiPod)) error {
	d := json.NewDecoder(r)
	if err := enter(d, '{'); err != nil {
		return err
	}
	found := false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		if key != "items" {
			var skipped json.RawMessage
			if err := d.Decode(&skipped); err != nil {
				return err
			}
			continue
		}
		found = true
		if err := readItems(d, each); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	if !found {
		return errors.New("not a list of pods: it has no items")
	}
	return nil
}

func readItems(d *json.Decoder, each func(*apiPod)) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	if t == nil { // null: none
		return nil
	}
	if t != json.Delim('[') {
		return errors.New("not a list of pods: items is no list")
	}
	for d.More() {
		var a apiPod
		if err := d.Decode(&a); err != nil {
			return err
		}
		each(&a)
	}
	_, err = d.Token()
	return err
}

func enter(d *json.Decoder, want json.Delim) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("not a list of pods: it begins with %v", t)
	}
	return nil
}

// readEnd returns what a refused request's body says, if that is a status, and else the HTTP status alone.
func readEnd(code int, r io.Reader) error {
	b, _ := io.ReadAll(io.LimitReader(r, 64<<10)) // what came of it is enough
	s := statusError{Code: code}
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) && json.Unmarshal(b, &s) == nil {
		s.Code = code
	}
	if s.Message == "" {
		s.Message = strings.TrimSpace(string(b))
	}
	return s
}
