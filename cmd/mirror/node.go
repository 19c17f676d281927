package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/internal/kube"
	"github.com/registrymirror/mirror/internal/logging"
	"github.com/registrymirror/mirror/node"
)

func newNodeCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:        "node",
		SuggestFor: []string{"agent", "daemonset"},
		Short:      "The agent that keeps a node's configuration",
		Args:       subcommand,
		RunE:       help,
	}
	cmd.AddCommand(newNodeRunCmd(), newNodeCleanCmd(), newNodeCleanedCmd())
	return cmd
}

// agentFlags are the flags of the agent.
type agentFlags struct {
	setup  setupFlags
	dir    string
	every  time.Duration
	listen string
	keep   bool
	events bool
	format string
}

func newNodeRunCmd() *cobra.Command {
	flags := agentFlags{format: "auto"}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Keep containerd's configuration on this node for as long as the mirror answers",
		Long: `Keep containerd's configuration on this node for as long as the mirror answers. The hosts.toml
files are written once the mirror has answered this node. After three failures in turn, some
40 seconds, they are withdrawn, and images are pulled from the registries; they come back when
the mirror answers again. So a mirror that is dead costs the node nothing. With --no-fallback
they stay.

With --client-cert or --authorization-file the agent also asks which client the mirror takes this
node for. If the login does not count three times in turn (a token that is wrong or has expired, a
certificate that can't be read) it says so in its log, its metrics and an Event; the files stay.
A new value in --authorization-file is in the files after the next answer of the mirror. While that
file can't be read the last value stays, and log, metrics and an Event say so.

It runs on the node's own network, as a DaemonSet with hostNetwork, since containerd does. A
stop takes the files back, and files that were there before come back too; with --keep all
stay. containerd is never restarted.

Exit codes: 0 stopped by a signal; 1 a file can't be written, or the port is in use; 2 wrong
usage.`,
		Example: `  mirror node run --mirror http://10.0.0.7:5000 --node "$NODE_NAME"`,
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return flags.run(cmd.Context(), cmd.ErrOrStderr()) },
	}
	flags.setup.addOptions(cmd)
	cmd.Flags().StringVar(&flags.dir, "dir", node.CertsDir, "`folder` of containerd's registries")
	cmd.Flags().DurationVar(&flags.every, "every", 30*time.Second, "time between two questions to the mirror")
	cmd.Flags().StringVar(&flags.listen, "listen", "127.0.0.1:5002", "`address` of /metrics and /healthz; empty: there are none")
	cmd.Flags().BoolVar(&flags.keep, "keep", false, "leave the files in place at the end")
	cmd.Flags().BoolVar(&flags.events, "events", false, "post an Event on the Node of --node when its configuration is withdrawn or comes back, and when its login is refused or can't be read; in a pod alone")
	addChoice(cmd, &flags.format, "log-format", "", []string{"auto", "text", "json"}, "`form` of the log: auto, text or json")
	return cmd
}

func (f *agentFlags) run(ctx context.Context, stderr io.Writer) error {
	if f.every < time.Second {
		return fmt.Errorf("--every %s: must be at least 1s", f.every)
	}
	o, err := f.setup.read(stderr)
	if err != nil {
		return err
	}
	out, err := node.Containerd(o, f.dir)
	if err != nil {
		return err
	}
	log, _ := logging.New(stderr, f.format, "info")
	changed, err := f.post(o.Node, log)
	if err != nil {
		return err
	}
	q := node.Question{Mirror: o.Mirror, CA: o.CA, ClientCert: o.ClientCert, ClientKey: o.ClientKey, Authorization: o.Authorization}
	options := node.AgentOptions{
		Dir: f.dir, Files: out.Files, Ready: q.Ready, Every: f.every, Fixed: o.NoFallback, Keep: f.keep, Log: log, Changed: changed,
	}
	if o.Authorization != "" || o.ClientCert != "" {
		options.Login = func(ctx context.Context) error { return q.Login(ctx) } // as Renew has left it
	}
	if o.Authorization != "" {
		options.Renew = func() ([]node.File, error) {
			login, err := f.setup.authorization()
			if err != nil {
				return nil, err
			}
			o := o
			o.Authorization = login
			out, err := node.Containerd(o, f.dir)
			if err != nil {
				return nil, err
			}
			q.Authorization = login
			return out.Files, nil
		}
	}
	a := node.NewAgent(options)
	group, ctx := errgroup.WithContext(ctx)
	if f.listen != "" {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen)
		if err != nil {
			return &exitError{exitFailed, fmt.Errorf("listen for /metrics: %w", err)}
		}
		s := &http.Server{Handler: a.Handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second}
		group.Go(func() error {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			return s.Close()
		})
	}
	group.Go(func() error { return a.Run(ctx) })
	if err := group.Wait(); err != nil {
		return &exitError{exitFailed, err}
	}
	return nil
}

// post returns what is done with each change of the node's state: an Event is posted on the Node, if that is wanted.
func (f *agentFlags) post(name string, log *slog.Logger) (func(context.Context, node.State, string), error) {
	if !f.events {
		return nil, nil
	}
	if name == "" {
		return nil, errors.New("node run --events needs --node NAME: the Node that the Events are about")
	}
	c, err := kube.NewClient(kube.ClientOptions{})
	if err != nil {
		return nil, &exitError{exitFailed, err}
	}
	instance, err := os.Hostname()
	if err != nil {
		instance = name
	}
	return func(ctx context.Context, s node.State, why string) {
		e := kube.NodeEvent{Node: name, Instance: instance, Reason: "MirrorInUse", Message: "This node pulls images through the mirror"}
		switch s {
		case node.Unreadable:
			e.Reason, e.Warning = "MirrorLoginUnreadable", true
			e.Message = "The login of this node can't be read; the last one that was read stays in use: " + why
		case node.Refused:
			e.Reason, e.Warning = "MirrorLoginRefused", true
			e.Message = "The mirror does not accept this node's login: images that need one are pulled past it, or not at all: " + why
		case node.Withdrawn:
			e.Reason, e.Warning = "MirrorWithdrawn", true
			e.Message = "The mirror does not answer this node, which pulls images from the registries until it does: " + why
		}
		if err := c.PostNodeEvent(ctx, e); err != nil {
			log.WarnContext(ctx, "cannot post an Event on the Node", "name", name, "error", err)
		}
	}, nil
}
