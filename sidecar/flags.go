package main

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"outrider.dev/sidecar/internal/oss"
	"outrider.dev/sidecar/policy"
)

// Variables that are no keys of the policy.
const (
	envLogLevel    = "OUTRIDER_LOG_LEVEL"
	envMetadataURL = "OUTRIDER_METADATA_URL"
	envKeyID       = "OSS_ACCESS_KEY_ID"
	// Secrets have no flags: a command line is for everybody on the machine to see.
	envKeySecret = "OSS_ACCESS_KEY_SECRET"
	envToken     = "OSS_SESSION_TOKEN"
	// PGPASSWORD is libpq's, and needs no flag either.
	envPasswordFile = "OUTRIDER_PGPASSWORD_FILE"
)

// placeKeys say where an archive is and how it is reached.
func placeKeys() []string {
	return []string{"archive", "oss-endpoint", "oss-region", "credentials"}
}

// commonFlags are those of every command.
func (a *app) commonFlags(fs *pflag.FlagSet) {
	a.envFlag(fs, "archive", "OUTRIDER_ARCHIVE", "", "root of the database in the archive: oss://bucket/prefix/namespace/cluster")
	a.policyFlags(fs, placeKeys()[1:]...)
	a.envFlag(fs, "oss-access-key-id", envKeyID, "", "access key id; its secret is given as "+envKeySecret+" only")
	a.envFlag(fs, "metadata-url", envMetadataURL, oss.MetadataURL, "metadata service of the ECS instance")
	a.envFlag(fs, "log-level", envLogLevel, "info", "debug, info, warn or error; the log is JSON on stderr")
}

// passwordFlag is for commands that connect to the server.
func (a *app) passwordFlag(fs *pflag.FlagSet) {
	a.envFlag(fs, "password-file", envPasswordFile, "", "file with the password of the role, read for each new connection; default is what libpq does")
}

// envFlag adds a flag that stands for a variable. setting and lookup read it once the command runs.
func (a *app) envFlag(fs *pflag.FlagSet, name, env, fallback, usage string) {
	fs.String(name, fallback, fmt.Sprintf("%s [%s]", usage, env))
	fs.Lookup(name).Annotations = map[string][]string{envAnnotation: {env}}
}

// envAnnotation marks a flag that stands for a variable.
const envAnnotation = "outrider_variable"

// collectFlags notes the flags of the command that runs: several commands may have one for the same variable.
func (a *app) collectFlags(fs *pflag.FlagSet) {
	fs.VisitAll(func(f *pflag.Flag) {
		if env := f.Annotations[envAnnotation]; len(env) == 1 {
			a.given[env[0]] = f
		}
	})
}

// policyFlags adds the flags of keys of the policy. policy and policyOf read them.
func (a *app) policyFlags(fs *pflag.FlagSet, names ...string) {
	for _, k := range policy.Keys() {
		if slices.Contains(names, k.Name) {
			a.envFlag(fs, k.Name, k.Env, k.Default, strings.ReplaceAll(k.Doc+": "+k.Form, "`", ""))
		}
	}
}

// lookup is the variable's flag if that was given, else the variable if it is not empty.
func (a *app) lookup(env string) (string, bool) {
	if f := a.given[env]; f != nil && f.Changed {
		return f.Value.String(), true
	}
	v, ok := a.env(env)
	return v, ok && v != ""
}

// setting is lookup with the default of the variable's flag, if it has one.
func (a *app) setting(env string) string {
	if v, ok := a.lookup(env); ok {
		return v
	}
	if f := a.given[env]; f != nil {
		return f.DefValue
	}
	return ""
}

// policy is the whole policy from flags and environment.
func (a *app) policy() (policy.Policy, policy.Sources, error) {
	var names []string
	for _, k := range policy.Keys() {
		names = append(names, k.Name)
	}
	return a.policyOf(names...)
}

// policyOf is the policy from the flags and variables of these keys only, so that a command is not stopped by a bad
// value that does not concern it. The archive is demanded, and must be among them; only a throw-away clone needs none.
func (a *app) policyOf(names ...string) (policy.Policy, policy.Sources, error) {
	clone := slices.Contains(names, "archiving") && a.setting("OUTRIDER_ARCHIVING") == string(policy.Off) && a.setting("OUTRIDER_RESTORE_FROM") != ""
	if a.setting("OUTRIDER_ARCHIVE") == "" && !clone {
		return policy.Policy{}, nil, usagef("no archive is named: set --archive or OUTRIDER_ARCHIVE to its root, oss://bucket/prefix/namespace/cluster")
	}
	keys := map[string]string{} // variable to name
	for _, k := range policy.Keys() {
		if slices.Contains(names, k.Name) {
			keys[k.Env] = k.Name
		}
	}
	flags := map[string]string{}
	for _, env := range slices.Sorted(maps.Keys(keys)) {
		if f := a.given[env]; f != nil && f.Changed {
			flags[keys[env]] = f.Value.String()
		}
	}
	variables := policy.Variables(func(env string) (string, bool) {
		if _, ok := keys[env]; !ok {
			return "", false
		}
		return a.env(env)
	})
	return policy.Resolve(variables, policy.Flags(flags))
}

// setLogger makes the logger that --log-level asks for.
func (a *app) setLogger() error {
	var level slog.Level
	if s := a.setting(envLogLevel); level.UnmarshalText([]byte(s)) != nil {
		return usagef("log level %q: expected debug, info, warn or error", s)
	}
	a.log = slog.New(slog.NewJSONHandler(a.stderr, &slog.HandlerOptions{Level: level}))
	return nil
}
