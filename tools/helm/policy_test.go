package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	rbac "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// pods returns the pod templates of a case by their object's kind and name.
func pods(all []object) map[string]core.PodTemplateSpec {
	found := map[string]core.PodTemplateSpec{}
	for _, o := range all {
		switch typed := o.typed.(type) {
		case *apps.DaemonSet:
			found[o.kind+" "+o.name] = typed.Spec.Template
		case *apps.Deployment:
			found[o.kind+" "+o.name] = typed.Spec.Template
		}
	}
	return found
}

// No container has any privilege, in no case; nothing of the host is mounted writable but the agent's own directory.
func TestNoPrivilege(t *testing.T) {
	for _, name := range cases(t) {
		for _, fault := range privileges(name, render(t, values(t, name, ""), kubeVersion)) {
			t.Error(name + ": " + fault)
		}
	}
}

// roots are the cases whose agent is root, by their own choice.
var roots = []string{"cri", "minimal"}

// privileges lists what a pod of a case may and should not.
func privileges(name string, all []object) (faults []string) {
	add := func(where, what string) { faults = append(faults, where+": "+what) }
	for where, pod := range pods(all) {
		s := pod.Spec
		agent := strings.HasPrefix(where, "DaemonSet")
		root := agent && slices.Contains(roots, name)
		if s.HostPID || s.HostIPC || s.HostNetwork != (agent && name == "kubelet") {
			add(where, "it shares namespaces of the host")
		}
		if p := s.SecurityContext; p == nil || p.SeccompProfile == nil || p.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
			add(where, "no seccomp profile")
		} else if p.RunAsNonRoot == nil || *p.RunAsNonRoot == root || p.RunAsUser == nil || (*p.RunAsUser == 0) != root || len(p.Sysctls) != 0 {
			add(where, "its user is not what the case says")
		}
		if s.AutomountServiceAccountToken == nil {
			add(where, "it is left open whether it has a token")
		}
		for i, c := range slices.Concat(s.InitContainers, s.Containers) {
			c, init := c, i < len(s.InitContainers)
			sc := c.SecurityContext
			if sc == nil || sc.Privileged == nil || *sc.Privileged || sc.AllowPrivilegeEscalation == nil || *sc.AllowPrivilegeEscalation ||
				sc.ReadOnlyRootFilesystem == nil || !*sc.ReadOnlyRootFilesystem {
				add(where+" "+c.Name, "privilege, escalation, or a root file system that can be written")
				continue
			}
			if sc.Capabilities == nil || !slices.Equal(sc.Capabilities.Drop, []core.Capability{"ALL"}) {
				add(where+" "+c.Name, "capabilities")
				continue
			}
			// What prepares the state directory is root with CHOWN, sees that directory only, and has ended before the agent runs.
			switch added := sc.Capabilities.Add; {
			case init && (c.Name != "state" || !slices.Equal(added, []core.Capability{"CHOWN"}) || *sc.RunAsUser != 0 || len(c.VolumeMounts) != 1 || c.VolumeMounts[0].Name != "state"):
				add(where+" "+c.Name, "more than it needs")
			case !init && (len(added) != 0 || sc.RunAsUser != nil):
				add(where+" "+c.Name, "capabilities or a user of its own")
			}
			if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
				add(where+" "+c.Name, "no resources")
			}
			if !strings.Contains(c.Image, ":") || strings.HasSuffix(c.Image, ":latest") {
				add(where+" "+c.Name, "image "+c.Image)
			}
			if !init && c.Name == "wattlet" && (c.LivenessProbe == nil || c.ReadinessProbe == nil) {
				add(where+" "+c.Name, "no probes")
			}
			for _, m := range c.VolumeMounts {
				writable := m.Name == "state" || m.Name == "data"
				if m.ReadOnly == writable {
					add(where+" "+c.Name, "mount "+m.Name+" is writable or should be")
				}
			}
		}
		allowed := map[string]string{"state": "/var/lib/wattlet", "cgroup": "/sys/fs/cgroup"}
		switch name {
		case "minimal": // a sensor in sysfs
			allowed = map[string]string{"sys": "/sys"}
		case "everything":
			allowed = map[string]string{"state": "/var/lib/wattlet", "sys": "/sys"}
		case "cri":
			allowed["cri"] = "/run/k3s/containerd"
		}
		hostPaths := map[string]string{}
		for _, v := range s.Volumes {
			if v.HostPath != nil {
				hostPaths[v.Name] = v.HostPath.Path
			}
		}
		if !agent {
			allowed = map[string]string{}
		}
		if !maps.Equal(hostPaths, allowed) {
			add(where, "it mounts other directories of the host than it needs")
		}
	}
	return faults
}

// The policy finds what it is for.
func TestPolicyFindsFaults(t *testing.T) {
	type change func(*core.PodSpec, *core.Container)
	for name, plant := range map[string]change{
		"privileged": func(_ *core.PodSpec, c *core.Container) { c.SecurityContext.Privileged = new(true) },
		"escalation": func(_ *core.PodSpec, c *core.Container) { c.SecurityContext.AllowPrivilegeEscalation = nil },
		"capability": func(_ *core.PodSpec, c *core.Container) {
			c.SecurityContext.Capabilities.Add = []core.Capability{"SYS_ADMIN"}
		},
		"all of them": func(_ *core.PodSpec, c *core.Container) { c.SecurityContext.Capabilities = nil },
		"writable":    func(_ *core.PodSpec, c *core.Container) { c.SecurityContext.ReadOnlyRootFilesystem = new(false) },
		"no context":  func(_ *core.PodSpec, c *core.Container) { c.SecurityContext = nil },
		"mount":       func(_ *core.PodSpec, c *core.Container) { c.VolumeMounts[len(c.VolumeMounts)-1].ReadOnly = false },
		"user":        func(_ *core.PodSpec, c *core.Container) { c.SecurityContext.RunAsUser = new(int64(0)) },
		"image":       func(_ *core.PodSpec, c *core.Container) { c.Image = "ghcr.io/wattlet/wattlet:latest" },
		"resources":   func(_ *core.PodSpec, c *core.Container) { c.Resources = core.ResourceRequirements{} },
		"probes":      func(_ *core.PodSpec, c *core.Container) { c.LivenessProbe = nil },
		"root":        func(s *core.PodSpec, _ *core.Container) { s.SecurityContext.RunAsUser = new(int64(0)) },
		"may be root": func(s *core.PodSpec, _ *core.Container) { s.SecurityContext.RunAsNonRoot = new(false) },
		"seccomp": func(s *core.PodSpec, _ *core.Container) {
			s.SecurityContext.SeccompProfile.Type = core.SeccompProfileTypeUnconfined
		},
		"network":      func(s *core.PodSpec, _ *core.Container) { s.HostNetwork = true },
		"processes":    func(s *core.PodSpec, _ *core.Container) { s.HostPID = true },
		"host's files": func(s *core.PodSpec, _ *core.Container) { s.Volumes[len(s.Volumes)-1].HostPath.Path = "/" },
		"token":        func(s *core.PodSpec, _ *core.Container) { s.AutomountServiceAccountToken = nil },
		"init mounts": func(s *core.PodSpec, c *core.Container) {
			s.InitContainers[0].VolumeMounts = append(s.InitContainers[0].VolumeMounts, c.VolumeMounts[0])
		},
		"init may more": func(s *core.PodSpec, _ *core.Container) {
			s.InitContainers[0].SecurityContext.Capabilities.Add = []core.Capability{"CHOWN", "DAC_OVERRIDE"}
		},
	} {
		all := render(t, values(t, "default", ""), kubeVersion)
		d := one[apps.DaemonSet](t, all)
		plant(&d.Spec.Template.Spec, &d.Spec.Template.Spec.Containers[0])
		if len(privileges("default", all)) == 0 {
			t.Errorf("%s: the policy has nothing to say", name)
		}
	}
}

// The roles have exactly the verbs that the mode needs, a token is there only if there is a role, and both belong together.
func TestRights(t *testing.T) {
	watch := rbac.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"watch"}}
	kubelet := rbac.PolicyRule{APIGroups: []string{""}, Resources: []string{"nodes/pods"}, Verbs: []string{"get"}}
	list := rbac.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}}
	for name, want := range map[string]struct{ cluster, own []rbac.PolicyRule }{
		"default": {cluster: []rbac.PolicyRule{watch}}, "simulated": {cluster: []rbac.PolicyRule{watch}}, "kubelet": {cluster: []rbac.PolicyRule{kubelet}},
		"cri": {}, "minimal": {}, "everything": {cluster: []rbac.PolicyRule{watch}, own: []rbac.PolicyRule{list}},
	} {
		all := render(t, values(t, name, ""), kubeVersion)
		var cluster, own []rbac.PolicyRule
		roles := map[string]bool{}
		for _, o := range all {
			switch typed := o.typed.(type) {
			case *rbac.ClusterRole:
				cluster, roles["ClusterRole "+o.name] = append(cluster, typed.Rules...), true
			case *rbac.Role:
				own, roles["Role "+o.name] = append(own, typed.Rules...), true
			}
		}
		same := func(a, b rbac.PolicyRule) bool { return a.String() == b.String() }
		if !slices.EqualFunc(cluster, want.cluster, same) || !slices.EqualFunc(own, want.own, same) {
			t.Errorf("%s: cluster-wide %v, in its namespace %v", name, cluster, own)
		}
		bound := map[string]bool{} // service accounts with a role
		for _, o := range all {
			var ref rbac.RoleRef
			var subjects []rbac.Subject
			switch typed := o.typed.(type) {
			case *rbac.ClusterRoleBinding:
				ref, subjects = typed.RoleRef, typed.Subjects
			case *rbac.RoleBinding:
				ref, subjects = typed.RoleRef, typed.Subjects
			default:
				continue
			}
			if !roles[ref.Kind+" "+ref.Name] || len(subjects) != 1 || subjects[0].Kind != "ServiceAccount" || subjects[0].Namespace != "energy" {
				t.Errorf("%s: %s binds %v to %v", name, o.name, ref, subjects)
				continue
			}
			bound[subjects[0].Name] = true
		}
		for where, pod := range pods(all) {
			if token := *pod.Spec.AutomountServiceAccountToken; token != bound[pod.Spec.ServiceAccountName] {
				t.Errorf("%s: %s has a token: %v; its account has a role: %v", name, where, token, bound[pod.Spec.ServiceAccountName])
			}
		}
	}
}

// A key is in Secrets only: in no other object, no argument and no note.
func TestKeysStaySecret(t *testing.T) {
	for _, name := range cases(t) {
		vals := values(t, name, "")
		texts, err := template(vals, kubeVersion)
		if err != nil {
			t.Fatal(err)
		}
		keys, _ := vals["keys"].(map[string]any)
		given, _ := keys["values"].(map[string]any)
		found := 0
		for path, text := range texts {
			if strings.HasSuffix(path, "keys.yaml") {
				var s core.Secret
				if err := yaml.Unmarshal([]byte(text), &s); err != nil {
					t.Fatal(err)
				}
				for meter, key := range given {
					if string(s.Data[meter]) == key.(string) {
						found++
					}
				}
				continue
			}
			for meter, key := range given {
				if strings.Contains(text, key.(string)) {
					t.Errorf("%s: %s has the key of %s", name, path, meter)
				}
			}
		}
		if found != len(given) {
			t.Errorf("%s: %d keys in the Secret, want %d", name, found, len(given))
		}
	}
	// A newline at a file's end is no part of a key, and is not there.
	all := render(t, values(t, "default", `keys: {values: {bench-1: "0123456789abcdef\n"}}`), kubeVersion)
	if got := string(one[core.Secret](t, all).Data["bench-1"]); got != "0123456789abcdef" {
		t.Errorf("key %q", got)
	}
	// The simulated meter has a key of its own if none is given.
	all = render(t, values(t, "", "simulator: {enabled: true}"), kubeVersion)
	again := render(t, values(t, "", "simulator: {enabled: true}"), kubeVersion)
	key, other := one[core.Secret](t, all).Data["simulated"], one[core.Secret](t, again).Data["simulated"]
	if len(key) != 32 || string(key) == string(other) {
		t.Errorf("keys %q and %q", key, other)
	}
}

// Agents run where the cluster file says, under the name that Kubernetes has for the node.
func TestPlacement(t *testing.T) {
	for name, want := range map[string][]string{
		"default": {"jetson-nano", "raspberrypi"}, "cri": {"pynq"}, "minimal": {"nas"}, "kubelet": {"raspberrypi"}, "simulated": nil,
		"everything": {"jetson-nano", "nas", "raspberrypi", "virtual"},
	} {
		spec := one[apps.DaemonSet](t, render(t, values(t, name, ""), kubeVersion)).Spec.Template.Spec
		var got []string
		if spec.Affinity != nil {
			for _, term := range spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
				f := term.MatchFields
				if len(f) != 1 || len(term.MatchExpressions) != 0 || f[0].Key != "metadata.name" || f[0].Operator != core.NodeSelectorOpIn || len(f[0].Values) != 1 {
					t.Errorf("%s: term %v", name, term)
					continue
				}
				got = append(got, f[0].Values...)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: agents on %v, want %v", name, got, want)
		}
		env := spec.Containers[0].Env
		if len(env) == 0 || env[0].Name != "NODE_NAME" || env[0].ValueFrom.FieldRef.FieldPath != "spec.nodeName" {
			t.Errorf("%s: env %v", name, env)
		}
	}
	spec := one[apps.DaemonSet](t, render(t, values(t, "default", "agent: {affinity: {nodeAffinity: {}}}"), kubeVersion)).Spec.Template.Spec
	if spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		t.Error("an affinity of one's own does not replace the chart's")
	}
}

// What monitors scrape is found, called as the rules want it, and keeps its series when pods change.
func TestMonitors(t *testing.T) {
	all := render(t, values(t, "everything", ""), kubeVersion)
	d, m := one[apps.DaemonSet](t, all), one[monitoring.PodMonitor](t, all)
	e := m.Spec.PodMetricsEndpoints[0]
	if !maps.Equal(m.Spec.Selector.MatchLabels, d.Spec.Selector.MatchLabels) || *e.Port != d.Spec.Template.Spec.Containers[0].Ports[0].Name ||
		!slices.Equal(m.Spec.NamespaceSelector.MatchNames, []string{d.Namespace}) || m.Labels["release"] != "kube-prometheus-stack" || !*m.Spec.ScrapeNativeHistograms {
		t.Errorf("the PodMonitor does not find the agents: %+v", m.Spec)
	}
	tls := render(t, values(t, "kubelet", ""), kubeVersion)
	s := one[monitoring.ServiceMonitor](t, tls)
	se, service := s.Spec.Endpoints[0], one[core.Service](t, tls)
	if se.Port != service.Spec.Ports[0].Name || service.Spec.ClusterIP != "None" || !service.Spec.PublishNotReadyAddresses ||
		!maps.Equal(service.Spec.Selector, one[apps.DaemonSet](t, tls).Spec.Selector.MatchLabels) {
		t.Errorf("the ServiceMonitor does not find the agents: %+v", s.Spec)
	}
	for label, want := range s.Spec.Selector.MatchLabels {
		if service.Labels[label] != want {
			t.Errorf("the Service has label %s %q, the ServiceMonitor wants %q", label, service.Labels[label], want)
		}
	}
	if se.Scheme == nil || !strings.EqualFold(se.Scheme.String(), "https") || se.TLSConfig == nil || se.BasicAuth == nil || se.BasicAuth.Password.Key != "password" {
		t.Errorf("no TLS or password: %+v", se)
	}
	for _, relabel := range [][]monitoring.RelabelConfig{e.RelabelConfigs, se.RelabelConfigs} {
		if len(relabel) != 3 || relabel[0].TargetLabel != "instance" || relabel[1].TargetLabel != "job" || *relabel[1].Replacement != "wattlet" || relabel[2].Action != "labeldrop" {
			t.Errorf("relabelling %+v", relabel)
		}
	}
	if !e.HonorLabels || !se.HonorLabels {
		t.Error("the agents' labels do not win")
	}
}

// Policies let in what has to, on the named ports of the pods they select.
func TestNetworkPolicies(t *testing.T) {
	all := render(t, values(t, "everything", ""), kubeVersion)
	byName := map[string]*networking.NetworkPolicy{}
	for _, o := range all {
		if p, ok := o.typed.(*networking.NetworkPolicy); ok {
			byName[o.name] = p
		}
	}
	for where, pod := range pods(all) {
		_, name, _ := strings.Cut(where, " ")
		p := byName[name]
		if p == nil {
			t.Fatalf("%s has no policy, there are %v", where, slices.Collect(maps.Keys(byName)))
		}
		for label, want := range p.Spec.PodSelector.MatchLabels {
			if pod.Labels[label] != want {
				t.Errorf("%s: its policy selects %s=%s, the pod has %q", where, label, want, pod.Labels[label])
			}
		}
		port := pod.Spec.Containers[0].Ports[0]
		if in := p.Spec.Ingress; len(in) != 1 || len(in[0].Ports) != 1 || in[0].Ports[0].Port.StrVal != port.Name || *in[0].Ports[0].Protocol != port.Protocol || len(in[0].From) == 0 {
			t.Errorf("%s: ingress %+v", where, in)
		}
	}
	var blocks, ports []string
	for _, e := range byName["wattlet-energy"].Spec.Egress {
		for _, p := range e.Ports {
			ports = append(ports, string(*p.Protocol)+" "+p.Port.String())
		}
		for _, to := range e.To {
			if to.IPBlock != nil {
				blocks = append(blocks, to.IPBlock.CIDR)
			}
		}
	}
	if want := []string{"UDP 53", "TCP 53", "UDP 5684", "UDP 5685", "UDP 5684", "TCP 443", "TCP 6443", "TCP 8081", "TCP 8082", "TCP 8082"}; !slices.Equal(ports, want) {
		t.Errorf("agents reach %v, want %v", ports, want)
	}
	if want := []string{"10.0.0.5/32", "10.42.3.9/32"}; !slices.Equal(blocks, want) { // a meter and a gateway
		t.Errorf("agents reach the addresses %v, want %v", blocks, want)
	}
	if n := count(render(t, values(t, "default", ""), kubeVersion), "NetworkPolicy"); n != 0 {
		t.Errorf("%d policies that nobody asked for", n)
	}
}

// recursiveReadOnly came with Kubernetes 1.31; below, an API server would not know it.
func TestVersions(t *testing.T) {
	for version, want := range map[string]bool{"v1.30.9": false, "v1.31.0": true, "v1.31.0+k3s1": true, kubeVersion: true} {
		mounts := one[apps.DaemonSet](t, render(t, values(t, "default", ""), version)).Spec.Template.Spec.Containers[0].VolumeMounts
		if got := mounts[len(mounts)-1].RecursiveReadOnly != nil; got != want {
			t.Errorf("%s: recursiveReadOnly %v, want %v", version, got, want)
		}
	}
}
