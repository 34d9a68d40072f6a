package serve

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
)

// StatusError is an answer that the caller is to blame for, or at least to be told of.
type StatusError struct {
	Status  int
	Message string // one line
}

func (e *StatusError) Error() string { return e.Message }

// BadRequest returns the error for what a caller did wrong.
func BadRequest(format string, args ...any) error {
	return &StatusError{http.StatusBadRequest, oneLine(fmt.Sprintf(format, args...))}
}

func tooLarge(limit int64) *StatusError {
	if limit == 0 {
		return &StatusError{http.StatusRequestEntityTooLarge, "this function takes no body: its parameters are in the query"}
	}
	return &StatusError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", limit)}
}

// JSON answers with v and a newline.
func JSON(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing the answer as JSON: %w", err)
	}
	Bytes(w, "application/json", append(b, '\n'))
	return nil
}

// Bytes answers with b. A caller who has gone gets nothing, which is no fault.
func Bytes(w http.ResponseWriter, contentType string, b []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(b)
}

func stack() string {
	b := make([]byte, 8<<10)
	return string(b[:runtime.Stack(b, false)])
}
