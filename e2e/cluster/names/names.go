// Package names is the name server of the tests' cluster: it knows Services as a cluster's DNS does, and names that the
// test makes up.
package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// domain ends the names of Services.
const domain = ".svc.cluster.local"

// ttl is how long answers may be kept, in seconds.
const ttl = 1

// largestQuery is what a client that does not say otherwise may send over UDP (RFC 1035, 4.2.1).
const largestQuery = 512

// Server answers over UDP. Its methods are safe for concurrent use.
type Server struct {
	services  corelisters.ServiceLister
	endpoints discoverylisters.EndpointSliceLister
	conn      net.PacketConn
	cancel    context.CancelFunc
	running   sync.WaitGroup

	mu     sync.Mutex
	others map[string]netip.Addr
}

// Start serves at address (host:port).
func Start(ctx context.Context, client kubernetes.Interface, address string) (*Server, error) {
	conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp4", address)
	if err != nil {
		return nil, fmt.Errorf("starting a name server: %w", err)
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	factory := informers.NewSharedInformerFactory(client, 0)
	s := &Server{conn: conn, cancel: cancel, others: map[string]netip.Addr{}}
	services, endpoints := factory.Core().V1().Services(), factory.Discovery().V1().EndpointSlices()
	s.services, s.endpoints = services.Lister(), endpoints.Lister()
	known := []cache.InformerSynced{services.Informer().HasSynced, endpoints.Informer().HasSynced}
	factory.Start(life.Done())
	s.running.Go(func() {
		<-life.Done()
		factory.Shutdown()
	})
	if !cache.WaitForCacheSync(ctx.Done(), known...) {
		return nil, errors.Join(fmt.Errorf("starting a name server: waiting for the Services: %w", ctx.Err()), s.Close())
	}
	s.running.Go(s.serve)
	return s, nil
}

// Set makes up a name. One that begins with "*." stands for all names below.
func (s *Server) Set(name string, address netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.others[strings.ToLower(name)] = address
}

// Close stops serving.
func (s *Server) Close() error {
	err := s.conn.Close()
	s.cancel()
	s.running.Wait()
	return err
}

func (s *Server) serve() {
	query := make([]byte, largestQuery)
	for {
		n, from, err := s.conn.ReadFrom(query)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // of a client that is gone
		}
		if answer, err := s.answer(query[:n]); err == nil { // who asks nonsense hears nothing
			_, _ = s.conn.WriteTo(answer, from) // clients ask again
		}
	}
}

// answer answers one message.
func (s *Server) answer(query []byte) ([]byte, error) {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil {
		return nil, err
	}
	question, err := parser.Question()
	if err != nil {
		return nil, err
	}
	addresses, known := s.look(strings.ToLower(strings.TrimSuffix(question.Name.String(), ".")))
	reply := dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true}
	if !known {
		reply.RCode = dnsmessage.RCodeNameError
	}
	builder := dnsmessage.NewBuilder(nil, reply)
	builder.EnableCompression()
	if err := errors.Join(builder.StartQuestions(), builder.Question(question), builder.StartAnswers()); err != nil {
		return nil, err
	}
	if question.Type == dnsmessage.TypeA {
		for _, a := range addresses {
			resource := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: ttl}
			if err := builder.AResource(resource, dnsmessage.AResource{A: a.As4()}); err != nil {
				return nil, err
			}
		}
	}
	return builder.Finish()
}

// look finds the addresses of a name. A name may be known and have none.
func (s *Server) look(name string) (addresses []netip.Addr, known bool) {
	if rest, ok := strings.CutSuffix(name, domain); ok {
		return s.lookService(strings.Split(rest, "."))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := s.others[name]; ok {
		return []netip.Addr{a}, true
	}
	for rest := name; rest != ""; {
		_, rest, _ = strings.Cut(rest, ".")
		if a, ok := s.others["*."+rest]; ok {
			return []netip.Addr{a}, true
		}
	}
	return nil, false
}

// lookService finds SERVICE.NAMESPACE, or HOST.SERVICE.NAMESPACE, which is one pod of a StatefulSet.
func (s *Server) lookService(parts []string) (addresses []netip.Addr, known bool) {
	host := ""
	if len(parts) == 3 {
		host, parts = parts[0], parts[1:]
	}
	if len(parts) != 2 {
		return nil, false
	}
	service, err := s.services.Services(parts[1]).Get(parts[0])
	if err != nil {
		return nil, false
	}
	if host == "" && service.Spec.ClusterIP != corev1.ClusterIPNone {
		a, err := netip.ParseAddr(service.Spec.ClusterIP)
		return []netip.Addr{a}, err == nil
	}
	slices, err := s.endpoints.EndpointSlices(parts[1]).List(labels.Set{discoveryv1.LabelServiceName: parts[0]}.AsSelector())
	if err != nil {
		return nil, false
	}
	for _, slice := range slices {
		for _, e := range slice.Endpoints {
			ready := service.Spec.PublishNotReadyAddresses || e.Conditions.Ready == nil || *e.Conditions.Ready
			if !ready || host != "" && (e.Hostname == nil || *e.Hostname != host) {
				continue
			}
			for _, text := range e.Addresses {
				if a, err := netip.ParseAddr(text); err == nil && a.Is4() {
					addresses = append(addresses, a)
				}
			}
		}
	}
	return addresses, host == "" || len(addresses) > 0
}
