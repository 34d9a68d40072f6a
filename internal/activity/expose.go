package activity

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Series are the labels under which a watchdog counts a completed request.
type Series struct {
	Code   int    // the response's status
	Method string // the request's, such as "post"; made lower case as the Go client does
}

// AppendText appends what a watchdog's metrics endpoint says of its requests: http_requests_in_flight and, once a request was
// completed, http_requests_total, in the text format 0.0.4. The histogram of durations that watchdogs have besides is left out.
func AppendText(b []byte, inFlight int64, total map[Series]int64) []byte {
	b = append(b, "# HELP http_requests_in_flight total HTTP requests in-flight\n# TYPE http_requests_in_flight gauge\n"+
		"http_requests_in_flight "...)
	b = append(strconv.AppendInt(b, inFlight, 10), '\n')
	if len(total) == 0 {
		return b
	}
	b = append(b, "# HELP http_requests_total total HTTP requests processed\n# TYPE http_requests_total counter\n"...)
	for _, s := range slices.SortedFunc(maps.Keys(total), func(x, y Series) int {
		return cmp.Or(cmp.Compare(x.Code, y.Code), strings.Compare(x.Method, y.Method))
	}) {
		b = append(b, `http_requests_total{code="`...)
		b = strconv.AppendInt(b, int64(s.Code), 10)
		b = append(b, `",method="`...)
		b = append(b, labelEscaper.Replace(strings.ToLower(s.Method))...)
		b = append(b, `"} `...)
		// As the Go client writes it: in the shortest form of a float64, 1000000 as 1e+06.
		b = append(strconv.AppendFloat(b, float64(total[s]), 'g', -1, 64), '\n')
	}
	return b
}

var labelEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// Exposer stands for the metrics endpoint of a simulated pod's watchdog: it returns the requests in flight and those completed,
// and is called for each answer, from any goroutine.
type Exposer func() (inFlight int64, total map[Series]int64)

// ServeHTTP answers with the text of AppendText.
func (e Exposer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	inFlight, total := e()
	_, _ = w.Write(AppendText(nil, inFlight, total)) // a client that has gone is not the pod's concern
}
