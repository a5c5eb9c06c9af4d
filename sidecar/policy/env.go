package policy

// Environment is the name of the level that FromEnv reads.
const Environment = "environment"

// Env is the policy as variables of the form NAME=value, in the order of Keys. FromEnv of them gives the same policy.
func (p Policy) Env() []string {
	var env []string
	for _, f := range fields() {
		if v := f.get(&p); v != "" {
			env = append(env, f.Env+"="+v)
		}
	}
	return env
}

// Annotations is the policy as annotations. Resolve of them on the level of a pod gives the same policy.
func (p Policy) Annotations() map[string]string {
	annotations := map[string]string{}
	for _, f := range fields() {
		if v := f.get(&p); v != "" {
			annotations[Prefix+f.Name] = v
		}
	}
	return annotations
}

// Variables is the level of the environment; lookup is os.LookupEnv or like it. Variables that are empty count as unset,
// as Kubernetes leaves them when an optional reference finds nothing.
func Variables(lookup func(name string) (string, bool)) Level {
	l := Level{name: Environment, values: map[string]string{}, spell: inEnv}
	for _, k := range Keys() {
		if v, ok := lookup(k.Env); ok && v != "" {
			l.values[k.Name] = v
		}
	}
	return l
}

// Flags is the level of a command line, by the names of keys.
func Flags(values map[string]string) Level {
	return Level{name: "command line", values: values, spell: asFlag}
}

// FromEnv reads the policy from variables. Errors are those of Resolve.
func FromEnv(lookup func(name string) (string, bool)) (Policy, Sources, error) {
	return Resolve(Variables(lookup))
}
