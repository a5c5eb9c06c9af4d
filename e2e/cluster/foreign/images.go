package foreign

import (
	"path"
	"regexp"
	"strings"
)

// imageLine is a line of a manifest, or of a configuration in it, that names an image.
var imageLine = regexp.MustCompile(`(?m)^(\s*(?:- )?image: )(\S+)$`)

// Pulled has all images of a manifest come from a place in a registry, where they have the last part of their names. Nodes ask
// for them at each start, as what they have may have been built anew since. An empty place changes nothing.
func Pulled(manifest, from string) string {
	from = strings.TrimSuffix(from, "/")
	if from == "" {
		return manifest
	}
	manifest = imageLine.ReplaceAllStringFunc(manifest, func(line string) string {
		parts := imageLine.FindStringSubmatch(line)
		return parts[1] + from + "/" + path.Base(parts[2])
	})
	return strings.ReplaceAll(manifest, "imagePullPolicy: IfNotPresent", "imagePullPolicy: Always")
}
