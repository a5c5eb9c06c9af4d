package inject

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/sidecar/policy"
)

// family is a kind of PostgreSQL image whose ways are known.
type family string

const (
	unknownImage family = ""
	libraryImage family = "postgres" // docker-library/postgres and what is built on it without moving anything
	haImage      family = "timescaledb-ha"
	bitnamiImage family = "bitnami"
)

// unknown is an id that cannot be told.
const unknown = policy.NoGID

// layout is what is known of an image from its name. Paths and ids are those of the images' Dockerfiles:
// docker-library/postgres, timescale/timescaledb-docker (built on the Alpine one of docker-library),
// timescale/timescaledb-docker-ha, bitnami/containers.
type layout struct {
	family family
	major  int    // 0 if the tag does not tell
	pgdata string // PGDATA where nothing else is said; "" if it depends on a major that is not known
	home   string // where a volume for the data is expected
	volume string // VOLUME of the image: the runtime puts an anonymous volume there, over whatever lies above; "" for none
	start  int64  // uid that the container starts with
	uid    int64  // uid of the PostgreSQL process when the container starts as root
	gid    int64
}

// reference is an image's name in its parts.
type reference struct {
	path []string // without the registry
	tag  string
	hash bool // pinned by digest
}

func parseReference(image string) reference {
	name, _, hash := strings.Cut(image, "@")
	tag := ""
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, tag = name[:i], name[i+1:]
	}
	path := strings.Split(name, "/")
	// The first part is a registry if it could not be a name at Docker Hub.
	if len(path) > 1 && (strings.ContainsAny(path[0], ".:") || path[0] == "localhost") {
		path = path[1:]
	}
	return reference{path: path, tag: tag, hash: hash}
}

func (r reference) base() string { return r.path[len(r.path)-1] }

// is tells whether the image is one of the named project's own, perhaps mirrored to another registry: its path ends
// with one of the names.
func (r reference) is(names ...string) bool {
	path := strings.Join(r.path, "/")
	return slices.ContainsFunc(names, func(n string) bool { return path == n || strings.HasSuffix(path, "/"+n) })
}

// layoutOf recognises an image by its name, whatever registry it comes from.
func layoutOf(c *corev1.Container) layout {
	r := parseReference(c.Image)
	bitnami := slices.ContainsFunc(r.path, func(s string) bool { return strings.HasPrefix(s, "bitnami") }) || strings.Contains(r.tag, "bitnami")
	switch {
	case slices.Contains(r.path, "chainguard"):
		// Their image is called postgres too, and keeps its data elsewhere.
	case r.base() == "postgresql" && (bitnami || hasBitnamiVariables(c)), r.base() == "timescaledb" && bitnami:
		return layout{
			family: bitnamiImage, major: majorOf(r.tag), pgdata: "/bitnami/postgresql/data", home: "/bitnami/postgresql", volume: "/bitnami/postgresql",
			start: 1001, uid: 1001, gid: 0,
		}
	case r.base() == "timescaledb-ha":
		return layout{
			family: haImage, major: majorOf(r.tag), pgdata: "/home/postgres/pgdata/data", home: "/home/postgres/pgdata",
			start: 1000, uid: 1000, gid: 1000,
		}
	case slices.Contains([]string{"postgres", "postgis", "pgvector", "timescaledb", "timescaledb-postgis"}, r.base()):
		return r.library()
	}
	return layout{start: unknown, uid: unknown, gid: unknown}
}

// library is the layout of docker-library's image and those built on it. One of somebody else's with the same name may
// be built on another base, so its user is not taken for granted.
func (r reference) library() layout {
	l := layout{family: libraryImage, major: majorOf(r.tag), start: unknown, uid: unknown, gid: unknown}
	switch {
	case r.is("timescale/timescaledb", "timescale/timescaledb-postgis"):
		l.start, l.uid, l.gid = 0, 70, 70
	case r.is("library/postgres", "postgis/postgis", "pgvector/pgvector") || len(r.path) == 1 && r.base() == "postgres":
		l.start = 0
		switch {
		case strings.Contains(r.tag, "alpine"):
			l.uid, l.gid = 70, 70
		case r.tag != "" || !r.hash:
			l.uid, l.gid = 999, 999
		}
	}
	switch {
	case l.major >= 18:
		l.volume, l.pgdata = "/var/lib/postgresql", "/var/lib/postgresql/"+strconv.Itoa(l.major)+"/docker"
	case l.major > 0:
		l.volume, l.pgdata = "/var/lib/postgresql/data", "/var/lib/postgresql/data"
	}
	l.home = l.volume
	return l
}

// majorOf finds the major version of PostgreSQL in a tag: 16, 16.4-alpine, 2.17.2-pg16, pg16.4-ts2.17.
func majorOf(tag string) int {
	m := regexp.MustCompile(`(?:^|[^a-z])pg(\d{2})(?:\D|$)`).FindStringSubmatch(tag)
	if m == nil {
		m = regexp.MustCompile(`^(\d{2})(?:\D|$)`).FindStringSubmatch(tag)
	}
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1]) // two digits
	return n
}

// hasBitnamiVariables recognises Bitnami's image where a mirror has renamed it: its charts always set some of these.
func hasBitnamiVariables(c *corev1.Container) bool {
	return slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool {
		return e.Name == "BITNAMI_DEBUG" || e.Name == "POSTGRESQL_VOLUME_DIR" || e.Name == "POSTGRESQL_PORT_NUMBER"
	})
}
