package kube

import "strings"

// functionLabels are the labels by which platforms say which function a pod serves: OpenFaaS (seen), Knative, Fission and Nuclio (from
// their documentation, not run).
var functionLabels = [...]string{"faas_function", "serving.knative.dev/service", "functionName", "nuclio.io/function-name"}

// openWhisk is the label of OpenWhisk's action pods.
const openWhisk = "user-action-pod"

// functionOf returns the function that a pod with these labels serves; own is a label that comes before all others, if not empty.
func functionOf(labels map[string]string, pod, own string) string {
	if f := labels[own]; own != "" && f != "" {
		return f
	}
	for _, name := range functionLabels {
		if f := labels[name]; f != "" {
			return f
		}
	}
	if labels[openWhisk] == "true" {
		return actionOf(pod)
	}
	return ""
}

// actionOf returns what the name of an OpenWhisk action's pod tells: wskINVOKER-COUNT-NAMESPACE-ACTION, where INVOKER may have dashes
// and numbers of its own, as in wskowdev-invoker-00-8-guest-hello, which is guest-hello. There is no label with the action, and a pod
// that was started in advance (…-prewarm-nodejs10) keeps its name whatever it is given to do. From its sources, not run.
func actionOf(pod string) string {
	if !strings.HasPrefix(pod, "wsk") {
		return ""
	}
	numbers := false
	for rest := pod; ; {
		elem, after, ok := strings.Cut(rest, "-")
		number := isNumber(elem)
		switch {
		case numbers && !number:
			return rest
		case !ok:
			return ""
		}
		numbers = number
		rest = after
	}
}

func isNumber(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || '9' < c {
			return false
		}
	}
	return s != ""
}
