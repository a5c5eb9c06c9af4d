package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"outrider.dev/sidecar/internal/evacuation"
	"outrider.dev/sidecar/internal/notice"
)

// Variables with which the webhook says whom to ask for evacuation.
const (
	envEvacuationURL   = "OUTRIDER_EVACUATION_URL"
	envEvacuationCA    = "OUTRIDER_EVACUATION_CA"
	envEvacuationToken = "OUTRIDER_EVACUATION_TOKEN_FILE"
)

func (a *app) evacuationFlags(fs *pflag.FlagSet) {
	a.envFlag(fs, "evacuation-url", envEvacuationURL, "", "where to ask for the evacuation of this pod after a termination notice; nobody is asked without it")
	a.envFlag(fs, "evacuation-ca", envEvacuationCA, "", "certificates (PEM) of the only authorities that are believed there")
	a.envFlag(fs, "evacuation-token-file", envEvacuationToken, "", "file with the token that says there which pod this is")
}

func (a *app) evacuation() evacuation.Config {
	return evacuation.Config{URL: a.setting(envEvacuationURL), CA: a.setting(envEvacuationCA), TokenFile: a.setting(envEvacuationToken)}
}

// newAsker makes what asks for evacuation, or nil. A sidecar that cannot ask is as good as ever at everything else.
func (g *guard) newAsker(c evacuation.Config, reg prometheus.Registerer) *evacuation.Asker {
	if c.URL == "" {
		return nil
	}
	c.Log, c.Registerer, c.Note = g.log, reg, g.note
	asker, err := evacuation.New(c)
	if err != nil {
		g.log.Error("the evacuation of this pod will not be asked for", "error", err)
		return nil
	}
	return asker
}

// askForEvacuation passes a notice on, or its withdrawal. What comes of it is up to others.
func (g *guard) askForEvacuation(n notice.Notice) {
	if g.asker != nil {
		g.asker.Announce(n.At, n.Instance)
	}
}

// until is ctx, ended by the signal as well: a pod that is being stopped has nothing more to ask for.
func until(ctx, soft context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(soft, cancel)
	return ctx
}
