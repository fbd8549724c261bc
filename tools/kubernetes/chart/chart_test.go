package chart

import (
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Each pod gets settings that exist and that its command reads.
func TestPodsGetSettingsThatTheirCommandReads(t *testing.T) {
	known := readers(t)
	eachSet(t, func(t *testing.T, one installation) {
		others, _ := one.values["environment"].(map[string]any)
		defined := custom(t, one)
		for _, pod := range pods(one) {
			for name := range pod.environment() {
				setting := strings.TrimSuffix(name, "_FILE")
				_, other := others[name]
				if other || name == "GOMEMLIMIT" || slices.Contains(defined[pod.command()], setting) {
					continue
				}
				byGateway := pod.command() == "bff" && slices.ContainsFunc(slices.Collect(maps.Keys(defined)), func(service string) bool { return setting == strings.ToUpper(service)+"_URL" })
				bySchema := pod.command() == "schema apply" && slices.ContainsFunc(slices.Collect(maps.Keys(defined)), func(service string) bool { return setting == strings.ToUpper(service)+"_DATABASE_URL" })
				if !byGateway && !bySchema && !slices.Contains(known[setting], pod.command()) {
					t.Errorf("gatehouse %s gets %s, which it does not read", pod.command(), name)
				}
			}
			if len(pod.environment()) != len(pod.container().Env) {
				t.Errorf("gatehouse %s gets a variable twice: %v", pod.command(), pod.container().Env)
			}
		}
	})
}

// Each setting that the values give reaches every command that runs and reads it.
func TestEachSettingOfTheValuesReachesItsReaders(t *testing.T) {
	known := readers(t)
	eachSet(t, func(t *testing.T, one installation) {
		for _, place := range []string{"settings", "secrets", "files"} {
			given, _ := one.values[place].(map[string]any)
			for name := range given {
				reached := 0
				for _, pod := range pods(one) {
					if pod.command() == "schema apply" && name == "GATEHOUSE_SECRET_KEY" || !slices.Contains(known[name], pod.command()) {
						continue
					}
					reached++
					environment := pod.environment()
					if value, ok := environment[name]; place == "settings" && (!ok || value != given[name]) {
						t.Errorf("%s has %s=%q, want %q", pod.command(), name, value, given[name])
					}
					if _, ok := environment[name+"_FILE"]; place == "secrets" && !ok {
						t.Errorf("%s lacks %s_FILE", pod.command(), name)
					}
					if value := environment[name]; place == "files" && !strings.HasPrefix(value, "/etc/gatehouse/files/"+name) {
						t.Errorf("%s has %s=%q", pod.command(), name, value)
					}
				}
				if reached == 0 {
					t.Errorf("%s.%s reaches no pod", place, name)
				}
			}
		}
	})
}

// Each key of a Secret that a pod mounts is a setting that it reads, and each such setting
// has its file. Only the hook that applies the schema has the owner's URL.
func TestSecretsAreMountedWhereTheyAreReadOnly(t *testing.T) {
	eachSet(t, func(t *testing.T, one installation) {
		owner := "gatehouse-owner/DATABASE_URL"
		if schema, ok := one.values["schema"].(map[string]any); ok && schema["databaseUrl"] != nil {
			from := schema["databaseUrl"].(map[string]any)
			owner = fmt.Sprintf("%s/%s", from["secret"], from["key"])
		}
		owners := 0
		for _, pod := range pods(one) {
			mounted := pod.mounted()
			for name, value := range pod.environment() {
				if strings.HasSuffix(name, "_FILE") {
					if want := "/etc/gatehouse/secrets/" + strings.TrimSuffix(name, "_FILE"); value != want || mounted[want] == "" {
						t.Errorf("%s: %s is %q, which is no mounted file: %v", pod.command(), name, value, mounted)
					}
					delete(mounted, value)
				}
			}
			if len(mounted) > 0 {
				t.Errorf("%s mounts secrets that it does not read: %v", pod.command(), mounted)
			}
			_, hook := pod.owner.GetAnnotations()["helm.sh/hook"]
			ownerFile := slices.Contains(slices.Collect(maps.Values(pod.mounted())), owner)
			if ownerFile {
				owners++
			}
			if _, set := pod.environment()["DATABASE_URL"]; set || ownerFile != hook || ownerFile != (pod.command() == "schema apply") {
				t.Errorf("%s: it has the owner's URL: %t, and is a hook: %t", pod.command(), ownerFile, hook)
			}
			for _, volume := range pod.spec.Spec.Volumes {
				if volume.Projected == nil && volume.ConfigMap == nil && volume.Secret == nil {
					t.Errorf("%s has the volume %+v", pod.command(), volume)
				}
			}
		}
		if owners != 1 {
			t.Errorf("%d pods have the owner's URL, want 1", owners)
		}
	})
}

// The Job of the schema runs before the pods of a new version, as an account of its own.
func TestTheSchemaIsAppliedBeforeThePodsStart(t *testing.T) {
	eachSet(t, func(t *testing.T, one installation) {
		jobs := of[*batchv1.Job](one)
		if len(jobs) != 1 {
			t.Fatalf("%d Jobs, want 1", len(jobs))
		}
		weights := map[string]int{}
		for _, object := range one.objects {
			about := object.(metav1.Object)
			hook, isHook := about.GetAnnotations()["helm.sh/hook"]
			ofSchema := about.GetLabels()["app.kubernetes.io/component"] == "schema"
			if ofSchema != isHook || isHook && hook != "pre-install,pre-upgrade" {
				t.Errorf("%T %s is the hook %q", object, about.GetName(), hook)
			}
			if isHook {
				weight, err := strconv.Atoi(about.GetAnnotations()["helm.sh/hook-weight"])
				if err != nil {
					t.Error(err)
				}
				weights[fmt.Sprintf("%T", object)] = weight
				if about.GetAnnotations()["helm.sh/hook-delete-policy"] != "before-hook-creation" {
					t.Errorf("%T is in the way of the next upgrade", object)
				}
			}
		}
		for kind, weight := range weights {
			if kind != "*v1.Job" && weight >= weights["*v1.Job"] {
				t.Errorf("%s is created with the weight %d, after the Job", kind, weight)
			}
		}
		accounts := map[string]string{}
		for _, pod := range pods(one) {
			name := pod.spec.Spec.ServiceAccountName
			if accounts[name] != "" || !exists[*corev1.ServiceAccount](one, name) {
				t.Errorf("%s runs as %q, as does %q", pod.command(), name, accounts[name])
			}
			accounts[name] = pod.command()
			if token := pod.spec.Spec.AutomountServiceAccountToken; token == nil || *token {
				t.Errorf("%s gets a token of the API server", pod.command())
			}
		}
	})
}

// No rollout takes a ready pod away, and each pod has the time to stop that its settings give it.
func TestRolloutsLoseNoCall(t *testing.T) {
	eachSet(t, func(t *testing.T, one installation) {
		for _, deployment := range of[*appsv1.Deployment](one) {
			rolling := deployment.Spec.Strategy.RollingUpdate
			if rolling == nil || *rolling.MaxUnavailable != intstr.FromInt32(0) || *rolling.MaxSurge == intstr.FromInt32(0) {
				t.Errorf("%s: %+v", deployment.Name, deployment.Spec.Strategy)
			}
			environment := pod{deployment, deployment.Spec.Template}.environment()
			stop, drain := 30*time.Second, time.Duration(0)
			var err error
			if drain, err = time.ParseDuration(environment["GATEHOUSE_DRAIN"]); err != nil {
				t.Error(err)
			}
			if text := environment["GATEHOUSE_STOP_LIMIT"]; text != "" {
				if stop, err = time.ParseDuration(text); err != nil {
					t.Error(err)
				}
			}
			grace := time.Duration(*deployment.Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second
			if grace < drain+stop+5*time.Second || grace > drain+stop+15*time.Second {
				t.Errorf("%s: its grace period is %s, with %s to drain and %s to stop", deployment.Name, grace, drain, stop)
			}
		}
	})
}

// Each probe asks for a page that every role serves, on the port where it serves it.
func TestProbesAskForPagesThatExist(t *testing.T) {
	pages := read(t, root+"/internal/rpc/mux.go")
	eachSet(t, func(t *testing.T, one installation) {
		for _, deployment := range of[*appsv1.Deployment](one) {
			pod := pod{deployment, deployment.Spec.Template}
			container := pod.container()
			for name, probe := range map[string]*corev1.Probe{"/livez": container.LivenessProbe, "/livez of the start": container.StartupProbe, "/readyz": container.ReadinessProbe} {
				want, _, _ := strings.Cut(name, " ")
				if probe == nil || probe.HTTPGet.Path != want || probe.HTTPGet.Port != intstr.FromString("http") || !strings.Contains(pages, `"GET `+want+`"`) {
					t.Errorf("%s: the probe %s is %+v", deployment.Name, name, probe)
				}
			}
			port, _ := pod.port("http")
			ops, _ := pod.port("ops")
			environment := pod.environment()
			if environment["GATEHOUSE_LISTEN"] != fmt.Sprintf(":%d", port) || environment["GATEHOUSE_OPS_LISTEN"] != fmt.Sprintf(":%d", ops) {
				t.Errorf("%s listens on %s and %s, and its ports are %d and %d", deployment.Name, environment["GATEHOUSE_LISTEN"], environment["GATEHOUSE_OPS_LISTEN"], port, ops)
			}
		}
	})
}

// Each pod meets the restricted standard of pod security.
func TestPodsMeetTheRestrictedStandard(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	eachSet(t, func(t *testing.T, one installation) {
		for _, pod := range pods(one) {
			restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
			result := policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, &pod.spec.ObjectMeta, &pod.spec.Spec))
			if !result.Allowed {
				t.Errorf("%s: %s", pod.command(), result.ForbiddenDetail())
			}
			if readOnly := pod.container().SecurityContext.ReadOnlyRootFilesystem; readOnly == nil || !*readOnly {
				t.Errorf("%s may write to its image", pod.command())
			}
		}
	})
}

// Each selector matches the pods that it is for, and each reference leads to an object.
func TestSelectorsMatchPods(t *testing.T) {
	eachSet(t, func(t *testing.T, one installation) {
		expect := func(what string, selector *metav1.LabelSelector, command string) {
			t.Helper()
			found := selected(t, one, selector)
			if len(found) != 1 || found[0].command() != command {
				t.Errorf("%s selects %d pods, want that of %s", what, len(found), command)
			}
		}
		for _, deployment := range of[*appsv1.Deployment](one) {
			command := pod{deployment, deployment.Spec.Template}.command()
			expect(deployment.Name, deployment.Spec.Selector, command)
			for _, label := range []string{"app.kubernetes.io/version", "helm.sh/chart"} {
				if deployment.Spec.Selector.MatchLabels[label] != "" {
					t.Errorf("the selector of %s has %s, which an upgrade changes", deployment.Name, label)
				}
			}
			for _, spread := range deployment.Spec.Template.Spec.TopologySpreadConstraints {
				expect("the spread of "+deployment.Name, spread.LabelSelector, command)
			}
		}
		for _, budget := range of[*policyv1.PodDisruptionBudget](one) {
			expect(budget.Name, budget.Spec.Selector, budget.Labels["app.kubernetes.io/component"])
		}
		for _, policy := range of[*networkingv1.NetworkPolicy](one) {
			expect(policy.Name, &policy.Spec.PodSelector, strings.Replace(policy.Labels["app.kubernetes.io/component"], "schema", "schema apply", 1))
		}
		for _, scaler := range of[*autoscalingv2.HorizontalPodAutoscaler](one) {
			if !exists[*appsv1.Deployment](one, scaler.Spec.ScaleTargetRef.Name) || len(scaler.Spec.Metrics) == 0 {
				t.Errorf("%s scales %+v by %v", scaler.Name, scaler.Spec.ScaleTargetRef, scaler.Spec.Metrics)
			}
		}
		for _, service := range of[*corev1.Service](one) {
			for _, found := range selected(t, one, &metav1.LabelSelector{MatchLabels: service.Spec.Selector}) {
				for _, port := range service.Spec.Ports {
					if number, ok := found.port(port.TargetPort.StrVal); !ok || service.Spec.ClusterIP == corev1.ClusterIPNone && number != port.Port {
						t.Errorf("%s sends port %d to %s, which is %d", service.Name, port.Port, port.TargetPort.StrVal, number)
					}
				}
			}
		}
		front := "bff"
		if one.values["mode"] == "serve" {
			front = "serve"
		}
		for _, service := range of[*corev1.Service](one) {
			component := service.Labels["app.kubernetes.io/component"]
			expect(service.Name, &metav1.LabelSelector{MatchLabels: service.Spec.Selector}, strings.Replace(component, "public", front, 1))
			if (component == "public") == (service.Spec.ClusterIP == corev1.ClusterIPNone) {
				t.Errorf("%s has the cluster IP %q", service.Name, service.Spec.ClusterIP)
			}
		}
	})
}

// Each call of a role reaches a headless Service, on a port that the network policies of
// both sides permit.
func TestCallsReachTheirService(t *testing.T) {
	eachSet(t, func(t *testing.T, one installation) {
		calls := 0
		for _, caller := range pods(one) {
			for name, value := range caller.environment() {
				to, err := url.Parse(value)
				if err != nil || !strings.HasSuffix(name, "_URL") || name == "GATEHOUSE_PUBLIC_URL" {
					continue
				}
				calls++
				i := slices.IndexFunc(of[*corev1.Service](one), func(s *corev1.Service) bool { return s.Name == to.Hostname() })
				if i < 0 {
					t.Errorf("%s: no Service has the name of %s=%s", caller.command(), name, value)
					continue
				}
				service := of[*corev1.Service](one)[i]
				callee := selected(t, one, &metav1.LabelSelector{MatchLabels: service.Spec.Selector})[0]
				port, _ := callee.port("http")
				if service.Spec.ClusterIP != corev1.ClusterIPNone || to.Port() != strconv.Itoa(int(port)) || strings.ToUpper(callee.command())+"_URL" != name {
					t.Errorf("%s: %s=%s leads to %s on port %d", caller.command(), name, value, callee.command(), port)
				}
				if !permitted(t, one, caller, callee, port) {
					t.Errorf("the network policies keep %s from %s", caller.command(), callee.command())
				}
				if len(of[*networkingv1.NetworkPolicy](one)) > 0 && callee.command() == "users" && permitted(t, one, pod{spec: corev1.PodTemplateSpec{}}, callee, port) {
					t.Error("the network policies permit a stranger to call users")
				}
			}
		}
		if one.values["mode"] != "serve" && calls < 4 {
			t.Errorf("found %d calls", calls)
		}
	})
}

// permitted reports whether the callee's policy lets the caller in, and the caller's out.
func permitted(t *testing.T, one installation, caller, callee pod, port int32) bool {
	t.Helper()
	matches := func(peers []networkingv1.NetworkPolicyPeer, who pod) bool {
		return len(peers) == 0 || slices.ContainsFunc(peers, func(peer networkingv1.NetworkPolicyPeer) bool {
			match, err := metav1.LabelSelectorAsSelector(peer.PodSelector)
			return err == nil && peer.PodSelector != nil && peer.NamespaceSelector == nil && match.Matches(k8slabels.Set(who.spec.Labels))
		})
	}
	ports := func(all []networkingv1.NetworkPolicyPort) bool {
		return slices.ContainsFunc(all, func(p networkingv1.NetworkPolicyPort) bool {
			return *p.Port == intstr.FromInt32(port) || *p.Port == intstr.FromString("http")
		})
	}
	in, out := false, false
	for _, policy := range of[*networkingv1.NetworkPolicy](one) {
		match, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
		if err != nil {
			t.Fatal(err)
		}
		if match.Matches(k8slabels.Set(callee.spec.Labels)) {
			in = in || slices.ContainsFunc(policy.Spec.Ingress, func(r networkingv1.NetworkPolicyIngressRule) bool { return ports(r.Ports) && matches(r.From, caller) })
		}
		if match.Matches(k8slabels.Set(caller.spec.Labels)) {
			out = out || slices.ContainsFunc(policy.Spec.Egress, func(r networkingv1.NetworkPolicyEgressRule) bool { return ports(r.Ports) && matches(r.To, callee) })
		}
	}
	return in && (out || len(caller.spec.Labels) == 0)
}

// GOMEMLIMIT is nine tenths of the limit of memory.
func TestTheMemoryLimitOfGoFollowsThatOfThePod(t *testing.T) {
	eachSet(t, func(t *testing.T, one installation) {
		for _, pod := range pods(one) {
			quantity := pod.container().Resources.Limits[corev1.ResourceMemory]
			limit := quantity.Value()
			mebibytes, err := strconv.ParseInt(strings.TrimSuffix(pod.environment()["GOMEMLIMIT"], "MiB"), 10, 64)
			if err != nil || mebibytes<<20 > limit*9/10 || mebibytes<<20 < limit*8/10 {
				t.Errorf("%s: GOMEMLIMIT is %s, and the limit %d bytes", pod.command(), pod.environment()["GOMEMLIMIT"], limit)
			}
		}
	})
}

// An Ingress, an HTTPRoute and a ServiceMonitor lead to Services and ports that exist.
func TestRoutesAndMonitorsLeadToServices(t *testing.T) {
	found := 0
	eachSet(t, func(t *testing.T, one installation) {
		public := of[*corev1.Service](one)[slices.IndexFunc(of[*corev1.Service](one), func(s *corev1.Service) bool { return s.Labels["app.kubernetes.io/component"] == "public" })]
		if got := public.Spec.Ports[0].AppProtocol; got == nil || *got != "kubernetes.io/h2c" {
			t.Error("the public Service does not say that it speaks h2c")
		}
		for _, ingress := range of[*networkingv1.Ingress](one) {
			for _, rule := range ingress.Spec.Rules {
				found++
				to := rule.HTTP.Paths[0].Backend.Service
				if to.Name != public.Name || to.Port.Name != public.Spec.Ports[0].Name || !strings.HasSuffix(rule.Host, ".example.com") {
					t.Errorf("%s leads from %q to %+v", ingress.Name, rule.Host, to)
				}
			}
		}
		for _, route := range of[*gatewayv1.HTTPRoute](one) {
			found++
			to := route.Spec.Rules[0].BackendRefs[0]
			if string(to.Name) != public.Name || int32(*to.Port) != public.Spec.Ports[0].Port || len(route.Spec.Hostnames) != 1 || !strings.HasSuffix(string(route.Spec.Hostnames[0]), ".example.com") {
				t.Errorf("%s leads from %v to %+v", route.Name, route.Spec.Hostnames, to)
			}
		}
		for _, monitor := range of[*monitoringv1.ServiceMonitor](one) {
			found++
			match, err := metav1.LabelSelectorAsSelector(&monitor.Spec.Selector)
			if err != nil {
				t.Fatal(err)
			}
			for _, service := range of[*corev1.Service](one) {
				scraped := slices.ContainsFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == monitor.Spec.Endpoints[0].Port })
				if match.Matches(k8slabels.Set(service.Labels)) != scraped {
					t.Errorf("%s selects %s: %t, which has the port: %t", monitor.Name, service.Name, !scraped, scraped)
				}
			}
		}
	})
	if found < 4 {
		t.Errorf("found %d routes and monitors", found)
	}
}

// Values with which a role would not start, or which would have no effect, are refused
// before anything is applied.
func TestMistakesInTheValuesAreRefused(t *testing.T) {
	for values, want := range map[string]string{
		"{}":                            "settings.GATEHOUSE_PUBLIC_URL: set it",
		minimal + "replica: 3":          "additional properties 'replica' not allowed",
		minimal + "mode: one":           "'roles', 'serve'",
		minimal + "environment: {A: b}": "does not match pattern",
		"settings: {GATEHOUSE_PUBLIC_URL: https://a.example.com, GATEHOUSE_ORIGIN: x}":                  "settings.GATEHOUSE_ORIGIN: no role reads",
		"settings: {GATEHOUSE_PUBLIC_URL: https://a.example.com, GATEHOUSE_SECRET_KEY: x}":              "settings.GATEHOUSE_SECRET_KEY: it is a secret",
		"settings: {GATEHOUSE_PUBLIC_URL: https://a.example.com, SMTP_URL: x}":                          "settings.SMTP_URL: it is a secret",
		"settings: {GATEHOUSE_PUBLIC_URL: https://a.example.com, GATEHOUSE_LISTEN: \":80\"}":            "settings.GATEHOUSE_LISTEN: the chart sets it",
		"settings: {GATEHOUSE_PUBLIC_URL: https://a.example.com, AUTH_URL: x}":                          "settings.AUTH_URL: the chart sets it",
		"settings: {GATEHOUSE_PUBLIC_URL: https://a.example.com, GATEHOUSE_PASSWORD_MIN: 12}":           "got number, want string",
		"settings: {GATEHOUSE_PUBLIC_URL: https://a.example.com, GATEHOUSE_DRAIN: soon}":                "not a time",
		minimal + "secrets: {DATABASE_URL: {}}":                                                         "secrets.DATABASE_URL: the chart sets it",
		minimal + "secrets: {REDIS: {}}":                                                                "secrets.REDIS: no role reads",
		minimal + "services: {auht: {replicas: 3}}":                                                     "services.auht: the chart does not know",
		minimal + "services: {auth: {definition: {port: 1}}}":                                           "services.auth.definition",
		minimal + "services: {auth: {replica: 3}}":                                                      "additional properties 'replica' not allowed",
		minimal + "services: {auth: {settings: {GATEHOUSE_SECRET_KEY: x}}}":                             "services.auth.settings.GATEHOUSE_SECRET_KEY: it is a secret",
		"settings: {GATEHOUSE_PUBLIC_URL: https://a.example.com, GATEHOUSE_REGISTRATION: verify}":       "settings.GATEHOUSE_REGISTRATION: verify needs mail",
		minimal + "files: {GATEHOUSE_UPSTREAMS: {configMap: upstreams}}":                                "files.GATEHOUSE_UPSTREAMS: add GATEHOUSE_IDENTITY_KEY",
		minimal + "files: {GATEHOUSE_PROVIDERS: {key: providers.yaml}}":                                 "oneOf",
		minimal + "files: {GATEHOUSE_PROVIDERS: {configMap: a, secret: a}}":                             "oneOf",
		minimal + "mounts: {Postgres: {secret: a}}":                                                     "does not match pattern",
		minimal + "ingress: {enabled: true}":                                                            "settings.GATEHOUSE_TRUSTED_PROXIES",
		"settings: {GATEHOUSE_PUBLIC_URL: x, GATEHOUSE_TRUSTED_PROXIES: x}\nhttpRoute: {enabled: true}": "httpRoute.parentRefs",
		minimal + "defaults: {resources: {limits: {memory: much}}}":                                     "not a limit of memory",
		minimal + "defaults: {autoscaling: {enabled: true, cpuPercent: 0}}":                             "autoscaling of auth: set cpuPercent",
	} {
		given, err := Values([]byte(values))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Render(filepath.Join(root, Folder), given); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngot %v, want an error with %q", values, err, want)
		}
	}
}

// A service's own values replace the defaults, false and 0 included.
func TestAServiceOverridesTheDefaults(t *testing.T) {
	one := install(t, minimal+"defaults: {autoscaling: {enabled: true}}\nservices: {users: {autoscaling: {enabled: false}, replicas: 0}}\n")
	for name, want := range map[string]bool{"gatehouse-auth": true, "gatehouse-users": false, "gatehouse-bff": true} {
		if exists[*autoscalingv2.HorizontalPodAutoscaler](one, name) != want {
			t.Errorf("there is an autoscaler %s: %t, want %t", name, !want, want)
		}
	}
	for _, deployment := range of[*appsv1.Deployment](one) {
		if replicas := deployment.Spec.Replicas; (deployment.Name == "gatehouse-users") != (replicas != nil && *replicas == 0) {
			t.Errorf("%s has the replicas %v", deployment.Name, replicas)
		}
	}
}
