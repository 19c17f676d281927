package symptom_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/diagnose/symptom"
)

// The remedy fits the registry (its operator, its kind) and the client.
func TestRemedies(t *testing.T) {
	t.Parallel()
	const refused = ": unexpected status from HEAD request to https://%/v2/x/manifests/1: 401 Unauthorized"
	kubelet := func(image string) string {
		host, _, _ := strings.Cut(image, "/")
		return `Failed to pull image "` + image + `"` + strings.ReplaceAll(refused, "%", host)
	}
	for name, tt := range map[string]struct{ text, remedy, command string }{
		"ECR and a pod":      {kubelet("123456789012.dkr.ecr.eu-west-1.amazonaws.com/acme/app:1"), "node's role", "aws ecr describe-images --registry-id 123456789012 --region eu-west-1 --repository-name acme/app"},
		"ECR and a sandbox":  {`Failed to create pod sandbox: failed to get sandbox image "123456789012.dkr.ecr.eu-west-1.amazonaws.com/eks/pause:3.5": failed to pull image: 401 Unauthorized`, "no imagePullSecret helps", "--repository-name eks/pause"},
		"ECR and ECS":        {"CannotPullContainerError: failed to resolve ref 123456789012.dkr.ecr.us-west-2.amazonaws.com/x:1: unexpected status from HEAD request to https://123456789012.dkr.ecr.us-west-2.amazonaws.com/v2/x/manifests/1: 403 Forbidden", "task execution role", "--repository-name x"},
		"ECR and Docker":     {`Error response from daemon: Head "https://123456789012.dkr.ecr.us-east-2.amazonaws.com/v2/x/manifests/3": no basic auth credentials`, "12 hours", "aws ecr get-login-password --region us-east-2 | docker login"},
		"ACR and a pod":      {kubelet("acme.azurecr.io/app:1"), "managed identity", "az aks update -n CLUSTER -g GROUP --attach-acr acme"},
		"no logins":          {kubelet("registry.k8s.io/pause:99"), "registry.k8s.io has no logins", "crane ls registry.k8s.io/pause"},
		"GAR and a pod":      {kubelet("europe-docker.pkg.dev/acme/r/app:1"), "roles/artifactregistry.reader", "gcloud artifacts docker tags list europe-docker.pkg.dev/acme/r/app"},
		"a pod":              {kubelet("quay.io/acme/app:1"), "imagePullSecret", "kubectl create secret docker-registry NAME -n NAMESPACE --docker-server=quay.io"},
		"Docker Hub's pod":   {kubelet("docker.io/acme/app:1"), "imagePullSecret", "--docker-server=https://index.docker.io/v1/ "},
		"Docker":             {`Error response from daemon: Head "https://ghcr.io/v2/acme/app/manifests/1": denied`, "log in", "docker login ghcr.io"},
		"Podman":             {"Error: initializing source docker://quay.io/acme/app:1: reading manifest 1 in quay.io/acme/app: unauthorized: access to the requested resource is not authorized", "log in", "podman login quay.io"},
		"Helm":               {`Error: INSTALLATION FAILED: GET "https://ghcr.io/v2/acme/charts/x/tags/list": GET "https://ghcr.io/token?scope=repository%3Aacme%2Fcharts%2Fx%3Apull&service=ghcr.io": response status code 403: denied: denied`, "registry of the chart", "helm registry login ghcr.io"},
		"a missing tag":      {`Failed to pull image "quay.io/acme/app:9": failed to resolve reference "quay.io/acme/app:9": quay.io/acme/app:9: not found`, "check name and tag", "crane ls quay.io/acme/app"},
		"a missing helper":   {"Failed getting credential from external registry credential provider: error execing credential provider plugin ecr-credential-provider for image 123456789012.dkr.ecr.eu-central-1.amazonaws.com/x: fork/exec /opt/bin/ecr-credential-provider: no such file or directory: ", "install it", "ls -l /opt/bin/ecr-credential-provider"},
		"a masked name":      {kubelet("***.dkr.ecr.us-east-1.amazonaws.com/***:***"), "node's role", "--repository-name REPOSITORY"},
		"an unnamed host":    {"Error: writing blob: storing blob to file: connect: connection refused", "port is right", "curl -v https://REGISTRY/v2/"},
		"Podman's disk":      {"Error: copying system image from manifest list: writing blob: adding layer with blob \"sha256:11\": processing tar file(open /x: no such file or directory): exit status 1", "remove the image", "podman rmi IMAGE"},
		"Docker's disk":      {"Error response from daemon: failed to register layer: lchown /x: operation not permitted", "remove the image", "docker rmi IMAGE"},
		"a proxy's scheme":   {`Error response from daemon: Get "https://quay.io/v2/acme/a/manifests/1": proxyconnect tcp: dial tcp: lookup http on 10.0.0.2:53: no such host`, "with one scheme", "systemctl show"},
		"several registries": {`Failed to pull image "myapp:1": short name mode is enforcing, but image name myapp:1 returns ambiguous list`, "docker.io/library/myapp:1", ""},
		"a shell's word":     {"Failed to pull image \"quay.io/$(reboot)/x:1\": manifest unknown", "check", "crane ls REPOSITORY"},
	} {
		r := read(t, tt.text+"\n")
		if len(r.Failures) != 1 {
			t.Errorf("%s: %+v", name, r.Failures)
			continue
		}
		f := r.Failures[0]
		if !strings.Contains(f.Remedy, tt.remedy) || !strings.Contains(f.Command, tt.command) || f.Page != "docs/failures/"+string(f.Reason)+".md" {
			t.Errorf("%s: %s\n> %s\n$ %s\n%s", name, f.Summary, f.Remedy, f.Command, f.Page)
		}
	}
}

// A pull that several programs report is one failure; two reports of one program are two.
func TestCounts(t *testing.T) {
	t.Parallel()
	const cause = `failed to resolve reference \"quay.io/acme/a:1\": quay.io/acme/a:1: not found`
	plain := strings.ReplaceAll(cause, `\`, "")
	containerd := `Sep 20 10:00:37 n1 containerd[901]: time="2023-09-20T10:00:37Z" level=error msg="PullImage \"quay.io/acme/a:1\" failed" error="` + cause + `"`
	kubelet := `Sep 20 10:00:37 n1 kubelet[1200]: E0920 10:00:37.382000    1200 log.go:32] "PullImage from image service failed" err="` + cause + `" image="quay.io/acme/a:1"`
	syncing := `Sep 20 10:00:50 n1 kubelet[1200]: E0920 10:00:50.382300    1200 pod_workers.go:1301] "Error syncing pod, skipping" err="failed to \"StartContainer\" for \"a\" with ImagePullBackOff: \"Back-off pulling image: ` + cause + `\""`
	event := `  Warning  Failed  4m (x3 over 5m)  kubelet  Failed to pull image "quay.io/acme/a:1": ` + plain
	mirror := `  Warning  Failed  4m  mirror  Failed to pull image "quay.io/acme/a:1": (mirror: quay.io has no acme/a:1; check the tag [7f3a9c2e])`
	other := `  Warning  Failed  4m (x2 over 5m)  kubelet  Failed to pull image "quay.io/acme/b:1": manifest unknown`
	for name, tt := range map[string]struct {
		lines []string
		want  int64
	}{
		"kubelet and containerd":        {[]string{containerd, kubelet, syncing, syncing}, 1},
		"each of them twice":            {[]string{containerd, kubelet, syncing, containerd, kubelet, syncing}, 2},
		"an event beside the logs":      {[]string{event, containerd, kubelet, syncing}, 3},
		"a mirror's own event":          {[]string{event, mirror}, 3},
		"a mirror's own event alone":    {[]string{mirror}, 1},
		"another image":                 {[]string{event, mirror, other}, 5},
		"crictl and its wrapper":        {[]string{strings.SplitN(kubelet, ": ", 2)[1], "FATA[0000] pulling image: " + plain}, 1},
		"a back-off that has the cause": {[]string{`  Normal  BackOff  1m (x9 over 2m)  kubelet  Back-off pulling image "quay.io/acme/a:1"`, event}, 3},
		"old columns": {[]string{
			"  FirstSeen  LastSeen  Count  From  SubObjectPath  Type  Reason  Message",
			`  5m         1m        7      kubelet  spec.containers{a}  Warning  Failed  Failed to pull image "quay.io/acme/a:1": ` + plain,
		}, 7},
		"a wide table": {[]string{
			"LAST SEEN   TYPE      REASON   OBJECT     MESSAGE   FIRST SEEN   COUNT   NAME",
			`2m   Warning   Failed   pod/a   Failed to pull image "quay.io/acme/a:1": ` + plain + `   20m   14   a.16f0c1c1d7e2a6b1`,
		}, 14},
	} {
		r := read(t, strings.Join(tt.lines, "\n")+"\n")
		if r.Total() != tt.want {
			t.Errorf("%s: %d, want %d: %+v", name, r.Total(), tt.want, r.Failures)
		}
	}
	r := read(t, event+"\n"+mirror+"\n")
	if len(r.Failures) != 1 || r.Failures[0].ID != "7f3a9c2e" || r.Failures[0].Summary != "quay.io has no acme/a:1" {
		t.Errorf("%+v", r.Failures)
	}
}

// A text is read as well after terminals, k9s, YAML and PowerShell have wrapped it, at any width.
func TestWrapped(t *testing.T) {
	t.Parallel()
	const text = `  Warning  Failed  27m (x4 over 29m)  kubelet  Failed to pull image "quay.io/acme/large:9": rpc error: code = NotFound desc = failed to pull and ` +
		`unpack image "quay.io/acme/large:9": failed to resolve reference "quay.io/acme/large:9": quay.io/acme/large:9: not found`
	const next = `  Warning  Failed  27m (x4 over 29m)  kubelet  Error: ErrImagePull`
	want := symptom.Failure{
		Reason: diagnose.TagNotFound, Class: diagnose.ClassMissing, Image: "quay.io/acme/large:9", Count: 4,
	}
	check := func(name, text string) {
		t.Helper()
		r := read(t, text)
		if len(r.Failures) != 1 {
			t.Errorf("%s: %+v\n%s", name, r.Failures, text)
			return
		}
		f := r.Failures[0]
		got := symptom.Failure{Reason: f.Reason, Class: f.Class, Image: f.Image, Count: f.Count}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s\n%s", name, diff, text)
		}
	}
	for _, width := range []int{70, 79, 80, 81, 97, 100, 120, 132, 160, 200} {
		check("columns", columns(text, width)+"\n"+columns(next, width)+"\n")
		check("words", words(text, width)+"\n"+next+"\n")
		var box strings.Builder
		for row := range strings.SplitSeq(columns(text, width)+"\n"+columns(next, width), "\n") {
			box.WriteString("│ " + row + strings.Repeat(" ", width-len(row)) + " │\n")
		}
		check("a box", box.String())
	}
	message := strings.TrimSpace(text[strings.Index(text, "Failed to pull"):])
	want.Count = 1
	check("folded", "    waiting:\n      message: >-\n        "+strings.ReplaceAll(words(message, 60), "\n", "\n        ")+"\n      reason: ErrImagePull\n")
	check("single quotes", "    waiting:\n      message: '"+strings.ReplaceAll(words(message, 60), "\n", "\n        ")+"'\n      reason: ErrImagePull\n")
	check("double quotes", "    waiting:\n      message: \""+strings.ReplaceAll(words(strings.ReplaceAll(message, `"`, `\"`), 60), "\n", "\\\n        \\ ")+"\"\n      reason: ErrImagePull\n")
	check("colours and time stamps", "2024-05-01T10:00:00.1234567Z \x1b[31;1mERROR\x1b[0m "+message+"\x1b[0;m\n")
}

// columns breaks a text as a terminal does.
func columns(s string, width int) string {
	var rows []string
	for len(s) > width {
		rows, s = append(rows, s[:width]), s[width:]
	}
	return strings.Join(append(rows, s), "\n")
}

// words breaks a text between words.
func words(s string, width int) string {
	indent := s[:len(s)-len(strings.TrimLeft(s, " "))]
	var rows []string
	row := indent
	for w := range strings.FieldsSeq(s) {
		if len(row)+1+len(w) > width && strings.TrimSpace(row) != "" {
			rows, row = append(rows, row), ""
		}
		if strings.TrimSpace(row) != "" {
			row += " "
		}
		row += w
	}
	return strings.Join(append(rows, row), "\n")
}

// Everything that grows with the input has a bound: lines that continue each other, documents in documents, programs, images.
func TestBounds(t *testing.T) {
	t.Parallel()
	const refused = `Failed to pull image "quay.io/acme/a:1": manifest unknown`
	for name, text := range map[string]string{
		"one line that never ends": `Error response from daemon: Get "https://` + strings.Repeat("x", 1<<20),
		"rows that never end":      strings.Repeat(`Failed to pull image "quay.io/acme/a:1": because of something and`+"\n", 2_000),
		"a box that never ends":    strings.Repeat("│ "+strings.Repeat("failed to pull ", 6)+"│\n", 2_000),
		"a scalar that never ends": "message: '" + strings.Repeat("failed to\n  pull image ", 2_000),
		"lists in lists":           strings.Repeat("[", 5000) + `{"message":"` + strings.ReplaceAll(refused, `"`, `\"`) + `"}` + strings.Repeat("]", 5000),
		"lines in lines":           strings.Repeat(`level=error msg="`, 5000) + refused,
		"prefixes":                 strings.Repeat("2024-05-01T10:00:00Z ", 5000) + refused,
		"many programs":            strings.Repeat(`E0920 10:00:37.382000 1 a`+"x"+`.go:1] `+refused+"\n", 5000),
		"quotes":                   strings.Repeat(`time="`, 20_000) + refused,
		"hosts in a sentence":      strings.TrimSuffix(refused, "manifest unknown") + "502 Bad Gateway (mirror: " + strings.Repeat("a.example b.example:5000 ", 300) + "[00000000])",
		"many ids":                 manyIDs(500),
		"mirrors that never end":   strings.Repeat("Error: initializing source docker://quay.io/acme/app:1: (Mirrors also failed: [m1: manifest unknown]\n", 2_000),
		"braces":                   strings.Repeat(`{"a":`, 5000) + refused,
	} {
		r := read(t, text)
		for _, f := range r.Failures {
			if len(f.Text) > 400 || len(f.Image) > 400 || len(f.Command) > 2000 {
				t.Errorf("%s: %d bytes of text, %d of image, %d of command", name, len(f.Text), len(f.Image), len(f.Command))
			}
		}
	}
}

// manyIDs is a number of events, each with another sentence of a mirror, whose id fits no reason.
func manyIDs(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "Failed to pull image \"quay.io/acme/a:%d\": 502 Bad Gateway (mirror: h%d.example and i.example and j.example and k.example sent nothing good [%08x])\n", i, i, i)
	}
	return b.String()
}

// Windows reports network errors in the language of its user.
func TestWindows(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]diagnose.Reason{
		"No connection could be made because the target machine actively refused it.":                                                       diagnose.ConnectRefused,
		"Es konnte keine Verbindung hergestellt werden, da der Zielcomputer die Verbindung verweigerte.":                                    diagnose.ConnectRefused,
		"Aucune connexion n’a pu être établie car l’ordinateur cible l’a expressément refusée.":                                             diagnose.ConnectRefused,
		"Aucune connexion n'a pu être établie car l'ordinateur cible l'a expressément refusée.":                                             diagnose.ConnectRefused,
		"No se puede establecer una conexión ya que el equipo de destino denegó expresamente dicha conexión.":                               diagnose.ConnectRefused,
		"Nenhuma conexão pôde ser feita porque a máquina de destino as recusou ativamente.":                                                 diagnose.ConnectRefused,
		"Impossibile stabilire la connessione. Rifiuto persistente del computer di destinazione.":                                           diagnose.ConnectRefused, //nolint:misspell // Italian
		"Подключение не установлено, т.к. конечный компьютер отверг запрос на подключение.":                                                 diagnose.ConnectRefused,
		"対象のコンピューターによって拒否されたため、接続できませんでした。":                                                                                                 diagnose.ConnectRefused,
		"대상 컴퓨터에서 연결을 거부했으므로 연결하지 못했습니다.":                                                                                                   diagnose.ConnectRefused,
		"由于目标计算机积极拒绝，无法连接。":                                                                                                                 diagnose.ConnectRefused,
		"A connection attempt failed because the connected party did not properly respond after a period of time":                           diagnose.ConnectTimeout,
		"Ein Verbindungsversuch ist fehlgeschlagen, da die Gegenstelle nach einer bestimmten Zeitspanne nicht ordnungsgemäß reagiert hat":   diagnose.ConnectTimeout,
		"Une tentative de connexion a échoué car le parti connecté n’a pas répondu convenablement au-delà d’une certaine durée":             diagnose.ConnectTimeout,
		"Se produjo un error durante el intento de conexión ya que la parte conectada no respondió adecuadamente tras un periodo de tiempo": diagnose.ConnectTimeout,
		"Uma tentativa de conexão falhou porque o componente conectado não respondeu corretamente após um período de tempo":                 diagnose.ConnectTimeout,
		"Impossibile stabilire la connessione. Risposta non corretta della parte connessa dopo l'intervallo di tempo":                       diagnose.ConnectTimeout, //nolint:misspell // Italian
		"Попытка установить соединение была безуспешной, т.к. от другого компьютера за требуемое время не получен нужный отклик":            diagnose.ConnectTimeout,
		"接続済みの呼び出し先が一定の時間を過ぎても正しく応答しなかったため、接続できませんでした。":                                                                                     diagnose.ConnectTimeout,
		"연결된 구성원으로부터 응답이 없어 연결하지 못했거나, 호스트로부터 응답이 없어 연결이 끊어졌습니다.":                                                                           diagnose.ConnectTimeout,
		"由于连接方在一段时间后没有正确答复或连接的主机没有反应，连接尝试失败。":                                                                                               diagnose.ConnectTimeout,
		"An existing connection was forcibly closed by the remote host.":                                                                    diagnose.ConnectionReset,
		"Eine vorhandene Verbindung wurde vom Remotehost geschlossen.":                                                                      diagnose.ConnectionReset,
		"Une connexion existante a dû être fermée par l’hôte distant.":                                                                      diagnose.ConnectionReset,
		"Se ha forzado la interrupción de una conexión existente por el host remoto.":                                                       diagnose.ConnectionReset,
		"Foi forçado o cancelamento de uma conexão existente pelo host remoto.":                                                             diagnose.ConnectionReset,
		"Connessione in corso interrotta forzatamente dall'host remoto.":                                                                    diagnose.ConnectionReset,
		"Удаленный хост принудительно разорвал существующее подключение.":                                                                   diagnose.ConnectionReset,
		"既存の接続はリモート ホストに強制的に切断されました。":                                                                                                       diagnose.ConnectionReset,
		"현재 연결은 원격 호스트에 의해 강제로 끊겼습니다.":                                                                                                      diagnose.ConnectionReset,
		"远程主机强迫关闭了一个现有的连接。":                                                                                                                 diagnose.ConnectionReset,
		"Eine bestehende Verbindung wurde softwaregesteuert durch den Hostcomputer abgebrochen.":                                            diagnose.ConnectionReset,
		"Une connexion établie a été abandonnée par un logiciel de votre ordinateur hôte.":                                                  diagnose.ConnectionReset,
		"A socket operation was attempted to an unreachable network.":                                                                       diagnose.Unreachable,
		"Ein Socketvorgang bezog sich auf ein nicht verfügbares Netzwerk.":                                                                  diagnose.Unreachable,
		"Une opération a été tentée sur un réseau impossible à atteindre.":                                                                  diagnose.Unreachable,
		"An attempt was made to access a socket in a way forbidden by its access permissions.":                                              diagnose.Unreachable,
		"Der Zugriff auf einen Socket war aufgrund der Zugriffsrechte des Sockets unzulässig.":                                              diagnose.Unreachable,
		"Une tentative d’accès à un socket de manière interdite par ses autorisations d’accès a été tentée.":                                diagnose.Unreachable,
	} {
		r := read(t, `Error response from daemon: Get "https://registry-1.docker.io/v2/": dial tcp 203.0.113.1:443: connectex: `+text+"\n")
		if len(r.Failures) != 1 || r.Failures[0].Reason != want {
			t.Errorf("%s: %+v, want %s", text, r.Failures, want)
		}
	}
	for text, want := range map[string]diagnose.Reason{
		"getaddrinfow: No such host is known.":             diagnose.DNSNotFound,
		"getaddrinfow: Der angegebene Host ist unbekannt.": diagnose.DNSNotFound,
		"getaddrinfow: Es ist kein solcher Host bekannt.":  diagnose.DNSNotFound,
		"getaddrinfow: Hôte inconnu.":                      diagnose.DNSNotFound,
		"getaddrinfow: Host desconocido.":                  diagnose.DNSNotFound,
		"getaddrinfow: Este host não é conhecido.":         diagnose.DNSNotFound,
		"getaddrinfow: Host sconosciuto.":                  diagnose.DNSNotFound,
		"getaddrinfow: そのようなホストは不明です。":                     diagnose.DNSNotFound,
		"getaddrinfow: 알려진 호스트가 없습니다.":                     diagnose.DNSNotFound,
		"getaddrinfow: Этот хост неизвестен.":              diagnose.DNSNotFound,
		"getaddrinfow: 不知道这样的主机。":                          diagnose.DNSNotFound,
		"getaddrinfow: This is usually a temporary error during hostname resolution and means that the local server did not receive a response": diagnose.DNSFailed,
		"getaddrinfow: Dies ist normalerweise ein zeitweiliger Fehler bei der Auflösung von Hostnamen.":                                         diagnose.DNSFailed,
		"getaddrinfow: Il s’agit en général d’une erreur temporaire qui se produit pendant la résolution d’un nom d’hôte":                       diagnose.DNSFailed,
	} {
		r := read(t, `Error response from daemon: Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: `+text+"\n")
		if len(r.Failures) != 1 || r.Failures[0].Reason != want {
			t.Errorf("%s: %+v, want %s", text, r.Failures, want)
		}
	}
	for _, text := range []string{
		"There is not enough space on the disk.", "Es steht nicht genug Speicherplatz auf dem Datenträger zur Verfügung.", "Espace insuffisant sur le disque.",
	} {
		r := read(t, `failed to register layer: re-exec error: exit status 1: output: write \\?\C:\ProgramData\docker\x: `+text+"\n")
		if len(r.Failures) != 1 || r.Failures[0].Reason != diagnose.NodeDiskFull {
			t.Errorf("%s: %+v", text, r.Failures)
		}
	}
}
