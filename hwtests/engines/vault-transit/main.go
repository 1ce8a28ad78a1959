// Vault for tests: HashiCorp's own core and HTTP handler with storage in memory, the transit secrets engine and the ways
// to log in that signerd knows; a transit engine is mounted. It ends when its standard input does, so that it never outlives a test.
//
//	vault-transit [-tls-cert FILE -tls-key FILE] [-unix PATH] [ADDRESS]
//
// Port 0 takes a free one. One line of JSON says where it listens, its root token and its unseal key.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/hashicorp/go-hclog"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/userpass"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/helper/namespace"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

var logins = map[string]logical.Factory{
	"approle":    approle.Factory,
	"kubernetes": kubernetes.Factory,
	"userpass":   userpass.Factory,
}

// plugins is the registry that Vault asks when something is mounted.
type plugins struct{}

func (plugins) factory(name string, kind consts.PluginType) logical.Factory {
	switch {
	case kind == consts.PluginTypeSecrets && name == "transit":
		return transit.Factory
	case kind == consts.PluginTypeCredential:
		return logins[name]
	}
	return nil
}

func (p plugins) Contains(name string, kind consts.PluginType) bool {
	return p.factory(name, kind) != nil
}

func (p plugins) Get(name string, kind consts.PluginType) (func() (interface{}, error), bool) {
	factory := p.factory(name, kind)
	return func() (interface{}, error) { return factory, nil }, factory != nil
}

func (plugins) Keys(kind consts.PluginType) []string {
	switch kind {
	case consts.PluginTypeSecrets:
		return []string{"transit"}
	case consts.PluginTypeCredential:
		return []string{"approle", "kubernetes", "userpass"}
	}
	return nil
}

func (p plugins) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, p.Contains(name, kind)
}

func (plugins) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

func main() {
	cert := flag.String("tls-cert", "", "serve TLS with this certificate chain, PEM")
	key := flag.String("tls-key", "", "the certificate's key, PEM")
	unix := flag.String("unix", "", "listen on this Unix socket, too")
	flag.Parse()
	address := flag.Arg(0)
	if address == "" {
		address = "127.0.0.1:0"
	}

	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr})
	core := must(vault.NewCore(&vault.CoreConfig{
		Physical:           must(inmem.NewInmem(nil, log)),
		LogicalBackends:    map[string]logical.Factory{"transit": transit.Factory},
		CredentialBackends: logins,
		BuiltinRegistry:    plugins{},
		DisableMlock:       true,
		Logger:             log,
	}))
	keys := must(core.Initialize(context.Background(), &vault.InitParams{
		BarrierConfig:  &vault.SealConfig{SecretShares: 1, SecretThreshold: 1},
		RecoveryConfig: &vault.SealConfig{},
	}))
	must(core.Unseal(keys.SecretShares[0]))

	must(core.HandleRequest(namespace.RootContext(context.Background()), &logical.Request{
		Operation:   logical.UpdateOperation,
		Path:        "sys/mounts/transit",
		ClientToken: keys.RootToken,
		Data:        map[string]interface{}{"type": "transit"},
	}))

	handler := vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core:           core,
		ListenerConfig: &configutil.Listener{},
	})
	listener := must(net.Listen("tcp", address))
	failed := make(chan error)
	go func() {
		if *cert != "" {
			failed <- http.ServeTLS(listener, handler, *cert, *key)
		} else {
			failed <- http.Serve(listener, handler)
		}
	}()
	if *unix != "" {
		socket := must(net.Listen("unix", *unix))
		go func() { failed <- http.Serve(socket, handler) }()
	}
	must(0, json.NewEncoder(os.Stdout).Encode(map[string]string{
		"address": listener.Addr().String(),
		"root":    keys.RootToken,
		"unseal":  hex.EncodeToString(keys.SecretShares[0]),
	}))
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		failed <- err
	}()
	must(0, <-failed)
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, "vault-transit:", err)
		os.Exit(1)
	}
	return value
}
