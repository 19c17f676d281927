package chart_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/yaml"
	psaapi "k8s.io/pod-security-admission/api"
	psa "k8s.io/pod-security-admission/policy"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/registrymirror/mirror/config"
)

var codecs = func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, rbacv1.AddToScheme, policyv1.AddToScheme, networkingv1.AddToScheme,
		monitoring.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict)
}()

// object is one of the cluster.
type object struct {
	kind, namespace, name string
	text                  string
	value                 runtime.Object
	meta                  metav1.Object
}

func (o object) id() string { return o.kind + " " + o.namespace + "/" + o.name }

// documents are those of a text.
func documents(t *testing.T, text string) (all []string) {
	t.Helper()
	r := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		var any map[string]any
		if err := sigsyaml.Unmarshal(doc, &any); err != nil {
			t.Fatalf("%v:\n%s", err, doc)
		}
		if len(any) > 0 {
			all = append(all, string(doc))
		}
	}
}

// decode reads the objects of a text as strictly as the API server can: unknown fields, and keys that are there twice, are errors.
func decode(t *testing.T, text string) (all []object) {
	t.Helper()
	for _, doc := range documents(t, text) {
		value, kind, err := codecs.UniversalDeserializer().Decode([]byte(doc), nil, nil)
		if err != nil {
			t.Errorf("%v:\n%s", err, doc)
			continue
		}
		meta := value.(metav1.Object)
		o := object{kind.Kind, meta.GetNamespace(), meta.GetName(), doc, value, meta}
		for k, v := range meta.GetLabels() {
			if bad := slices.Concat(validation.IsQualifiedName(k), validation.IsValidLabelValue(v)); len(bad) > 0 {
				t.Errorf("%s: label %s: %s: %v", o.id(), k, v, bad)
			}
		}
		if bad := validation.IsDNS1123Subdomain(o.name); len(bad) > 0 {
			t.Errorf("%s: %v", o.id(), bad)
		}
		all = append(all, o)
	}
	return all
}

// podOf is the pod that an object makes; nil: none.
func podOf(o runtime.Object) *corev1.PodTemplateSpec {
	switch o := o.(type) {
	case *appsv1.StatefulSet:
		return &o.Spec.Template
	case *appsv1.DaemonSet:
		return &o.Spec.Template
	case *batchv1.Job:
		return &o.Spec.Template
	case *corev1.Pod:
		return &corev1.PodTemplateSpec{ObjectMeta: o.ObjectMeta, Spec: o.Spec}
	}
	return nil
}

// violations are what pods violate of the restricted Pod Security Standard, by the reasons of the policy's own code: for all values of
// ci, and for some of them. A pod that is not here violates nothing.
var (
	folderOfNode = []string{"restricted volume types", "runAsNonRoot != true", "runAsUser=0"} // root writes to a folder of the node
	agent        = append([]string{"host namespaces", "hostPort", "probe or lifecycle host"}, folderOfNode...)
	agentScraped = append([]string{"host namespaces", "hostPort"}, folderOfNode...) // its listener is on the node's own address
	// An init container gives a folder of the node away.
	onNode = append([]string{"hostPort", "unrestricted capabilities"}, folderOfNode...)

	violations = map[string][]string{
		"DaemonSet mirror-agent": agent, "DaemonSet mirror-cleanup": folderOfNode,
		"monitoring DaemonSet mirror-agent": agentScraped, "ipv6 DaemonSet mirror-agent": agentScraped,
		"hostport DaemonSet mirror": onNode, "hostnetwork DaemonSet mirror": append([]string{"host namespaces"}, onNode...),
	}
)

// checkPods looks at each pod: what it violates of the restricted Pod Security Standard is exactly what is known of it.
func checkPods(t *testing.T, name string, all []object) {
	t.Helper()
	evaluator, err := psa.NewEvaluator(psa.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all {
		pod := podOf(o.value)
		if pod == nil {
			continue
		}
		var got []string
		for _, r := range evaluator.EvaluatePod(psaapi.LevelVersion{Level: psaapi.LevelRestricted, Version: psaapi.LatestVersion()}, &pod.ObjectMeta, &pod.Spec) {
			if !r.Allowed {
				got = append(got, r.ForbiddenReason)
			}
		}
		want, ok := violations[name+" "+o.kind+" "+o.name]
		if !ok {
			want = violations[o.kind+" "+o.name]
		}
		want = slices.Clone(want)
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s violates of the restricted Pod Security Standard (-known +now):\n%s", o.id(), diff)
		}
		checkContainers(t, o, pod)
	}
}

// checkContainers looks at what the standard does not ask for.
func checkContainers(t *testing.T, o object, pod *corev1.PodTemplateSpec) {
	t.Helper()
	// A Service named mirror would be in variables that the mirror takes for its settings.
	if pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks {
		t.Errorf("%s has the variables of all Services", o.id())
	}
	if pod.Spec.AutomountServiceAccountToken == nil {
		t.Errorf("%s leaves it to its account whether it has a token", o.id())
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		s := c.SecurityContext
		if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
			t.Errorf("%s, container %s can write to its root", o.id(), c.Name)
		}
		if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL") {
			t.Errorf("%s, container %s can gain rights", o.id(), c.Name)
		}
		// Namespaces with a quota take no pod of which a container names none.
		if r := c.Resources; r.Requests.Cpu().IsZero() || r.Requests.Memory().IsZero() || r.Limits.Memory().IsZero() {
			t.Errorf("%s, container %s has no requests or no limit of memory", o.id(), c.Name)
		}
		if c.Name == "mirror" {
			checkStop(t, o, pod, c)
		}
	}
}

// checkPlaces: where the mirror is at a port of each node, each node that has the agent has a mirror.
func checkPlaces(t *testing.T, all []object) {
	t.Helper()
	var mirror, agent *corev1.PodSpec
	for _, o := range all {
		switch pod := podOf(o.value); {
		case o.kind != "DaemonSet":
		case o.name == "mirror":
			mirror = &pod.Spec
		case o.name == "mirror-agent":
			agent = &pod.Spec
		}
	}
	if mirror == nil || agent == nil || mirror.Containers[0].Ports[0].HostPort == 0 {
		return
	}
	if diff := cmp.Diff(mirror.Tolerations, agent.Tolerations); diff != "" {
		t.Errorf("the mirror is not on all nodes that have the agent (-mirror +agent):\n%s", diff)
	}
	if diff := cmp.Diff(mirror.NodeSelector, agent.NodeSelector); diff != "" {
		t.Errorf("the mirror is not on all nodes that have the agent (-mirror +agent):\n%s", diff)
	}
}

// checkStop looks at how the mirror's pod ends: it has time for preStop and for its drain, before it is killed.
func checkStop(t *testing.T, o object, pod *corev1.PodTemplateSpec, c corev1.Container) {
	t.Helper()
	set := mirrorConfig(t, "", c)
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.Sleep == nil || c.Lifecycle.PreStop.Sleep.Seconds < 5 {
		t.Fatalf("%s stops before its nodes know", o.id())
	}
	if grace := *pod.Spec.TerminationGracePeriodSeconds; float64(grace) < float64(c.Lifecycle.PreStop.Sleep.Seconds)+set.Drain.Seconds()+10 {
		t.Errorf("%s is killed after %d s, before %v of drain are over", o.id(), grace, set.Drain)
	}
}

// mirrorConfig is the configuration of the mirror's container, with its variables. Empty: without a file.
func mirrorConfig(t *testing.T, file string, c corev1.Container) *config.Config {
	t.Helper()
	var env []string
	for _, e := range c.Env {
		env = append(env, e.Name+"="+e.Value)
	}
	set, err := config.Load(file, env)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// checkConfig has the mirror read the ConfigMap, with the variables of its pod.
func checkConfig(t *testing.T, all []object) {
	t.Helper()
	file := ""
	for _, o := range all {
		m, ok := o.value.(*corev1.ConfigMap)
		if !ok || m.Data["config.yaml"] == "" {
			continue
		}
		path := t.TempDir() + "/config.yaml"
		write(t, path, m.Data["config.yaml"])
		if _, err := config.Load(path, nil); err != nil {
			t.Errorf("%s: %v", o.id(), err)
		}
		if strings.HasSuffix(o.name, "-config") {
			file = path
		}
	}
	for _, o := range all {
		pod := podOf(o.value)
		if pod == nil || pod.Spec.Containers[0].Name != "mirror" {
			continue
		}
		set := mirrorConfig(t, file, pod.Spec.Containers[0])
		for _, p := range pod.Spec.Containers[0].Ports {
			want := map[string]string{"registry": set.Listen, "metrics": set.Metrics.Listen, "admin": set.Admin.Listen}[p.Name]
			if want != ":"+strconv.Itoa(int(p.ContainerPort)) {
				t.Errorf("%s: the port %s is %d, and the mirror listens on %s", o.id(), p.Name, p.ContainerPort, want)
			}
		}
		mounted := slices.ContainsFunc(pod.Spec.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == set.Cache.Dir && !m.ReadOnly })
		if !mounted {
			t.Errorf("%s: no volume is mounted at the cache, %s", o.id(), set.Cache.Dir)
		}
		for _, n := range set.Named() {
			inVolume := slices.ContainsFunc(pod.Spec.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool {
				return strings.HasPrefix(n.File, m.MountPath+"/") && m.SubPath == ""
			})
			if !inVolume {
				t.Errorf("%s: the configuration names %s, which is on no volume", o.id(), n.File)
			}
		}
	}
}

// checkReferences looks for what an object names and no other object is.
func checkReferences(t *testing.T, all []object) {
	t.Helper()
	has := func(kind, namespace, name string) bool {
		return slices.ContainsFunc(all, func(o object) bool { return o.kind == kind && o.namespace == namespace && o.name == name })
	}
	for _, o := range all {
		if pod := podOf(o.value); pod != nil {
			if s := pod.Spec.ServiceAccountName; s != "" && !has("ServiceAccount", o.namespace, s) {
				t.Errorf("%s: there is no account %s", o.id(), s)
			}
			for _, v := range pod.Spec.Volumes {
				if v.ConfigMap != nil && strings.HasPrefix(v.ConfigMap.Name, "mirror-") && !has("ConfigMap", o.namespace, v.ConfigMap.Name) {
					t.Errorf("%s: there is no ConfigMap %s", o.id(), v.ConfigMap.Name)
				}
			}
		}
		switch v := o.value.(type) {
		case *appsv1.StatefulSet:
			if !has("Service", o.namespace, v.Spec.ServiceName) {
				t.Errorf("%s: there is no Service %s", o.id(), v.Spec.ServiceName)
			}
		case *rbacv1.RoleBinding:
			if !has("Role", o.namespace, v.RoleRef.Name) || !has("ServiceAccount", v.Subjects[0].Namespace, v.Subjects[0].Name) {
				t.Errorf("%s binds what is not there", o.id())
			}
		case *rbacv1.ClusterRoleBinding:
			if !has("ClusterRole", "", v.RoleRef.Name) || !has("ServiceAccount", v.Subjects[0].Namespace, v.Subjects[0].Name) {
				t.Errorf("%s binds what is not there", o.id())
			}
		case *corev1.Service:
			if v.Spec.Selector["app.kubernetes.io/component"] == "mirror" && !slices.ContainsFunc(all, func(p object) bool {
				pod := podOf(p.value)
				return pod != nil && matches(v.Spec.Selector, pod.Labels)
			}) {
				t.Errorf("%s selects no pod", o.id())
			}
		}
	}
}

func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// TestDecodeIsStrict shows that decode finds what it is for.
func TestDecodeIsStrict(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"unknown field": "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {prots: []}\n",
		"twice":         "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {type: NodePort}\nspec: {type: ClusterIP}\n",
		"wrong type":    "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: x}\nspec: {replicas: two}\n",
		"unknown kind":  "apiVersion: v1\nkind: Srevice\nmetadata: {name: x}\n",
	} {
		if _, _, err := codecs.UniversalDeserializer().Decode([]byte(text), nil, nil); err == nil {
			t.Errorf("%s: it is accepted", name)
		}
	}
}

// asJSON is an object as plain values, for a comparison.
func asJSON(t *testing.T, doc string) (v any) {
	t.Helper()
	b, err := sigsyaml.YAMLToJSONStrict([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
