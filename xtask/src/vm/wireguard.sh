# The machine itself: two namespaces joined by kernel WireGuard, and HTTPS through it under loss.
set -ex
umask 077
ip() { /bin/ip "$@"; }
tc() { /bin/tc "$@"; }
ip netns add a; ip netns add b
ip link add va netns a type veth peer name vb netns b
for n in a b; do ip -n $n link set lo up; done
ip -n a addr add 192.0.2.1/24 dev va; ip -n b addr add 192.0.2.2/24 dev vb
ip -n a link set va up; ip -n b link set vb up
wg genkey > ka; wg genkey > kb
ip -n a link add wg0 type wireguard; ip -n b link add wg0 type wireguard
ip netns exec a wg set wg0 private-key ka listen-port 51820 peer $(wg pubkey < kb) endpoint 192.0.2.2:51820 allowed-ips 0.0.0.0/0
ip netns exec b wg set wg0 private-key kb listen-port 51820 peer $(wg pubkey < ka) endpoint 192.0.2.1:51820 allowed-ips 0.0.0.0/0
ip -n a addr add 10.8.0.1/24 dev wg0; ip -n b addr add 10.8.0.2/24 dev wg0
ip -n a link set wg0 up; ip -n b link set wg0 up
ip -n a link set wg0 mtu 1420; tc -n a qdisc add dev wg0 clsact; tc -n a qdisc add dev va root netem loss 1%
printf '[req]\ndistinguished_name=d\n[d]\n' > cnf
openssl req -x509 -config cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k.pem -out c.pem -days 1 -subj /CN=www.example.org -addext subjectAltName=DNS:www.example.org 
mkdir www; head -c 5000000 /dev/urandom > www/big; echo hello > www/index.html
cd www; ip netns exec b openssl s_server -accept 443 -cert ../c.pem -key ../k.pem -WWW -quiet & sleep 1; cd ..
ip netns exec a curl -sS --cacert c.pem --resolve www.example.org:443:10.8.0.2 https://www.example.org/big -o got
sha256sum got www/big
cmp got www/big
