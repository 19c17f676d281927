package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/internal/kube"
	"github.com/registrymirror/mirror/node"
)

func newNodeCleanCmd() *cobra.Command {
	var dir string
	var stay bool
	cmd := &cobra.Command{
		Use:   "clean",
		Short: "Take back what an agent has left on this node",
		Long: `Take back what an agent has left on this node: its hosts.toml files are removed, and files that
were there before come back. An agent does the same when it stops, so this is for nodes where it
was killed. With --stay the command then waits until it is stopped, so that a DaemonSet counts the
node as done.

Exit codes: 0 nothing of the agent is left; 1 a file can't be removed; 2 wrong usage.`,
		Example: `  mirror node clean
  mirror node clean --dir /var/snap/microk8s/current/args/certs.d --stay`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			changes, err := node.Uninstall(dir)
			if err := printChanges(cmd.OutOrStdout(), "", dir, changes, node.Output{}, err); err != nil {
				return err
			}
			if stay {
				<-cmd.Context().Done()
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", node.CertsDir, "`folder` of containerd's registries")
	cmd.Flags().BoolVar(&stay, "stay", false, "wait until the process is stopped")
	return cmd
}

func newNodeCleanedCmd() *cobra.Command {
	var namespace, name string
	var within time.Duration
	cmd := &cobra.Command{
		Use:   "cleaned",
		Short: "Wait until a DaemonSet of mirror node clean --stay has done its work",
		Long: `Wait until a DaemonSet of mirror node clean --stay is ready on all nodes, for a limited time.
Nodes that are gone, or that don't answer, are named at the end with what to do there; they
don't hold up an uninstall. It runs in a pod of the cluster, whose service account may get the
DaemonSet and list the pods of its namespace.

Exit codes: 0 all nodes are done, or the time is over; 1 it does not run in a pod; 2 wrong
usage.`,
		Example: `  mirror node cleaned --namespace mirror --daemonset mirror-cleanup --within 1m`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if namespace == "" || name == "" {
				return errors.New("node cleaned needs --namespace and --daemonset: the DaemonSet to wait for")
			}
			c, err := kube.NewClient(kube.ClientOptions{})
			if err != nil {
				return &exitError{exitFailed, err}
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), within)
			defer cancel()
			d, err := cleaned(ctx, func(ctx context.Context) (kube.Daemons, error) { return c.Daemons(ctx, namespace, name) })
			return write(cmd.OutOrStdout(), cleanedText(d, err))
		},
	}
	cmd.Flags().StringVar(&namespace, "namespace", "", "`namespace` of the DaemonSet")
	cmd.Flags().StringVar(&name, "daemonset", "", "`name` of the DaemonSet")
	cmd.Flags().DurationVar(&within, "within", time.Minute, "how long to wait for the nodes")
	return cmd
}

// cleaned asks for a DaemonSet until all of its pods are ready, or the context ends. It returns the last answer, and the error of the
// last question; nil: it was answered.
func cleaned(ctx context.Context, ask func(context.Context) (kube.Daemons, error)) (last kube.Daemons, failure error) {
	for {
		d, err := ask(ctx)
		switch {
		case err == nil:
			last, failure = d, nil
			if d.Seen && d.Ready >= d.Wanted {
				return last, nil
			}
		case ctx.Err() == nil:
			failure = err
		}
		if !backoff.Wait(ctx, time.Second) {
			return last, failure
		}
	}
}

func cleanedText(d kube.Daemons, failure error) string {
	const remedy = "; where it comes back with files of the agent, run there: mirror node clean\n"
	switch {
	case failure != nil:
		return fmt.Sprintf("the API server does not say whether the nodes are clean: %v%s", failure, remedy)
	case !d.Seen:
		return "the cluster has made no pod for the nodes: see whether its controllers run" + remedy
	case d.Ready >= d.Wanted:
		return fmt.Sprintf("nothing of the agent is left on %d nodes\n", d.Ready)
	}
	names := ""
	if len(d.Unready) > 0 {
		names = ": " + strings.Join(d.Unready[:min(len(d.Unready), 20)], ", ")
	}
	return fmt.Sprintf("%d nodes are clean; %d did not answer in time%s%s", d.Ready, d.Wanted-d.Ready, names, remedy)
}
