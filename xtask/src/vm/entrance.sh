# The main job on this kernel, with its own WireGuard module and programs nobody here wrote:
#
#   client ── eth0 [entrance: forwarder] wg0 ══ WireGuard ══ wg0 [node: nginx]
#
# Each check prints a line; the last line counts them and the exit code says whether any failed.
umask 077
passed=0
failed=0

# busybox would take its own.
ip() { /bin/ip "$@"; }
tc() { /bin/tc "$@"; }
in_client() { ip netns exec client "$@"; }
in_entrance() { ip netns exec entrance "$@"; }
in_node() { ip netns exec node "$@"; }

# check WHAT COMMAND...: the command's success decides.
check() {
  what=$1
  shift
  if "$@" >/tmp/check.log 2>&1; then
    passed=$((passed + 1))
    echo "ok      $what"
  else
    failed=$((failed + 1))
    echo "FAILED  $what"
    sed 's/^/          /' /tmp/check.log
  fi
}

die() {
  echo "FAILED  $*"
  exit 1
}

# ---- network ------------------------------------------------------------------------------------
network() {
  for name in client entrance node; do
    ip netns add $name && ip -n $name link set lo up || return 1
  done
  ip link add eth0 netns client type veth peer name eth0 netns entrance &&
    ip link add eth1 netns entrance type veth peer name eth0 netns node || return 1

  # The client is a router away: what it uses is not on the link.
  ip -n client addr add 203.0.113.1/24 dev eth0
  ip -n client addr add 2001:db8:1::1/64 dev eth0 nodad
  ip -n client addr add 198.51.100.9/32 dev lo
  ip -n client addr add 2001:db8:9::9/128 dev lo
  ip -n client link set eth0 up
  ip -n client route add 203.0.113.7/32 dev eth0 src 198.51.100.9
  ip -n client route add 2001:db8:1::7/128 dev eth0 src 2001:db8:9::9

  ip -n entrance addr add 203.0.113.7/24 dev eth0
  ip -n entrance addr add 2001:db8:1::7/64 dev eth0 nodad
  ip -n entrance link set eth0 up
  ip -n entrance route add default via 203.0.113.1
  ip -n entrance route add default via 2001:db8:1::1

  # Below the tunnel.
  ip -n entrance addr add 192.0.2.1/24 dev eth1
  ip -n entrance link set eth1 up
  ip -n node addr add 192.0.2.2/24 dev eth0
  ip -n node link set eth0 up

  wg genkey >entrance.key && wg genkey >node.key || return 1
  for name in entrance node; do
    ip -n $name link add wg0 type wireguard || return 1
  done
  in_entrance wg set wg0 private-key entrance.key listen-port 51820 \
    peer "$(wg pubkey <node.key)" endpoint 192.0.2.2:51820 allowed-ips 10.8.0.2/32,fd00:8::2/128
  in_node wg set wg0 private-key node.key listen-port 51820 \
    peer "$(wg pubkey <entrance.key)" endpoint 192.0.2.1:51820 allowed-ips 0.0.0.0/0,::/0
  ip -n entrance addr add 10.8.0.1/24 dev wg0
  ip -n entrance addr add fd00:8::1/64 dev wg0 nodad
  ip -n node addr add 10.8.0.2/24 dev wg0
  ip -n node addr add fd00:8::2/64 dev wg0 nodad
  for name in entrance node; do
    ip -n $name link set wg0 mtu 1420 up || return 1
  done
  # The node sees clients' own addresses and answers through the tunnel.
  ip -n node route add default dev wg0
  ip -n node route add default dev wg0 metric 1 2>/dev/null
  ip -6 -n node route add default dev wg0
  # Merged segments would hide a wrong checksum from the capture on the node.
  in_node ethtool -K wg0 gro off
}

# ---- servers on the node ------------------------------------------------------------------------
servers() {
  cat >openssl.cnf <<'CONFIG'
[req]
distinguished_name = name
[name]
CONFIG
  openssl req -x509 -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -keyout key.pem -out cert.pem -days 2 -subj /CN=example.org \
    -addext 'subjectAltName=DNS:*.example.org,DNS:*.apps.example.org' 2>openssl.log || return 1
  mkdir -p www upload temp /var/log/nginx /var/lib/nginx
  head -c 20000000 /dev/urandom >www/big
  head -c 3000000 www/big >www/medium
  head -c 600000 www/big >www/small
  cat >nginx.conf <<'CONFIG'
user root;
worker_processes 1;
pid /tmp/nginx.pid;
error_log /tmp/nginx.log;
events {}
http {
  access_log off;
  client_body_temp_path /tmp/temp;
  ssl_certificate /tmp/cert.pem;
  ssl_certificate_key /tmp/key.pem;
  server {
    listen 443 ssl;
    listen [::]:443 ssl;
    listen 8443 ssl proxy_protocol;
    listen [::]:8443 ssl proxy_protocol;
    location = /who { return 200 "from=$remote_addr header=$proxy_protocol_addr name=$ssl_server_name\n"; }
    location /upload/ { root /tmp; dav_methods PUT; client_max_body_size 0; }
    location / { root /tmp/www; }
  }
}
CONFIG
  in_node nginx -c /tmp/nginx.conf -p /tmp
}

# ---- the program under test ---------------------------------------------------------------------
configuration() {
  cat >forwarder.toml <<'CONFIG'
[entrance]
public = ["eth0"]
tunnels = ["wg0"]

[[listener]]
name = "https"
protocol = "tls"
port = 443
on_refuse = "alert"

[[pool]]
name = "transparent"
client_address = "transparent"
nodes = ["10.8.0.2:443", "[fd00:8::2]:443"]

[[pool]]
name = "proxied"
client_address = "proxy-v2"
nodes = ["10.8.0.2:8443", "[fd00:8::2]:8443"]

[[pool]]
name = "masqueraded"
client_address = "masquerade"
nodes = ["10.8.0.2:443", "[fd00:8::2]:443"]

# 10.8.0.9 is nobody: connections must go on to the other node.
[[pool]]
name = "half-dead"
client_address = "transparent"
balance = "random"
nodes = ["10.8.0.9:443", "10.8.0.2:443"]

[[route]]
names = ["www.example.org", "*.apps.example.org"]
pool = "transparent"

[[route]]
names = ["proxied.example.org"]
pool = "proxied"

[[route]]
names = ["masqueraded.example.org"]
pool = "masqueraded"

[[route]]
names = ["half-dead.example.org"]
pool = "half-dead"
CONFIG
}

start() {
  mkdir -p /bpf && mount -t bpf none /bpf || return 1
  /bin/ip netns exec entrance forwarder run --config forwarder.toml --bpffs /bpf/forwarder >forwarder.log 2>&1 &
  forwarder=$!
  # Newer verifiers take longer, emulated a minute and more.
  for _ in $(seq 60); do
    sleep 1
    kill -0 $forwarder 2>/dev/null || break
    attached && return 0
  done
  tail -n 20 forwarder.log | cut -c 1-300
  return 1
}

# Programs are on both sides.
attached() {
  in_entrance forwarder status --json --bpffs /bpf/forwarder >status.json 2>&1
  grep -q '"interface": "eth0"' status.json && grep -q '"interface": "wg0"' status.json
}

# ---- questions ----------------------------------------------------------------------------------
# fetch FAMILY NAME PATH [CURL OPTIONS]
fetch() {
  case $1 in
    4) address=203.0.113.7 ;;
    6) address='[2001:db8:1::7]' ;;
  esac
  name=$2 path=$3
  shift 3
  in_client curl -sS --cacert cert.pem --max-time 180 --connect-timeout 15 \
    --resolve "$name:443:$address" "$@" "https://$name/$path"
}

# answers FAMILY NAME WORDS: the node's answer contains the words.
answers() {
  fetch "$1" "$2" who >answer
  cat answer
  grep -q -- "$3" answer
}

# refused NAME: curl sees the alert 112, unrecognized_name.
refused() {
  if fetch 4 "$1" who >answer 2>&1; then
    return 1
  fi
  cat answer
  grep -qi 'unrecognized name' answer
}

no_name_is_refused() {
  in_client curl -sS -k --max-time 10 https://203.0.113.7/who >answer 2>&1
  code=$?
  cat answer
  [ $code -eq 35 ] || [ $code -eq 56 ]
}

not_tls_is_refused() {
  in_client curl -sS --max-time 10 http://203.0.113.7:443/who >answer 2>&1
  code=$?
  cat answer
  [ $code -ne 0 ] && [ $code -ne 28 ]
}

# capture NAMESPACE INTERFACE FILE [FILTER]: until `capture_end`.
capture() {
  namespace=$1 interface=$2 file=$3
  shift 3
  /bin/ip netns exec "$namespace" tcpdump -Z root -i "$interface" -n -U -B 8192 -w "$file" "$@" 2>"$file.log" &
  capture=$!
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    grep -qs listening "$file.log" && return 0
    sleep 1
  done
  cat "$file.log"
  return 1
}

capture_end() {
  sleep 1
  kill -TERM $capture
  wait $capture 2>/dev/null
}

# packets FILE [FILTER]
packets() {
  file=$1
  shift
  tcpdump -Z root -n -r "$file" "$@" 2>/dev/null | wc -l
}

# Refused names first, then a listed one, which shows that the capture sees anything at all.
nothing_of_a_refused_name_in_the_tunnel() {
  capture entrance wg0 refused.pcap || return 1
  refused other.example.org
  refused example.org
  no_name_is_refused
  not_tls_is_refused
  sleep 2
  before=$(packets refused.pcap)
  answers 4 www.example.org name=www.example.org
  capture_end
  after=$(packets refused.pcap)
  echo "packets in the tunnel: $before, with a listed name: $after"
  [ "$before" -eq 0 ] && [ "$after" -gt 5 ]
}

# A small path MTU and no segmentation offload: the hello comes in pieces of 200 bytes or so.
hello_in_pieces() {
  in_client ethtool -K eth0 tso off gso off
  ip -n client route change 203.0.113.7/32 dev eth0 src 198.51.100.9 mtu lock 256
  capture entrance eth0 pieces.pcap dst port 443 || return 1
  answers 4 www.example.org from=198.51.100.9
  result=$?
  capture_end
  ip -n client route change 203.0.113.7/32 dev eth0 src 198.51.100.9
  in_client ethtool -K eth0 tso on gso on
  large=$(packets pieces.pcap greater 271)
  small=$(packets pieces.pcap greater 150)
  echo "segments of more than 256 bytes: $large, pieces: $small"
  [ $result -eq 0 ] && [ "$large" -eq 0 ] && [ "$small" -ge 2 ]
}

# download FAMILY NAME FILE
download() {
  rm -f got
  fetch "$1" "$2" "$3" -o got
  sha256sum got "www/$3"
  cmp got "www/$3"
}

# upload FAMILY NAME FILE
upload() {
  rm -f "upload/$3"
  fetch "$1" "$2" "upload/$3" -T "www/$3"
  sha256sum "upload/$3" "www/$3"
  cmp "upload/$3" "www/$3"
}

# lossy PERCENT COMMAND...: loss on both links, both ways.
lossy() {
  percent=$1
  shift
  for link in client:eth0 entrance:eth0 entrance:eth1 node:eth0; do
    tc -n "${link%:*}" qdisc replace dev "${link#*:}" root netem loss "$percent%" delay 2ms || return 1
  done
  "$@"
  result=$?
  for link in client:eth0 entrance:eth0 entrance:eth1 node:eth0; do
    tc -n "${link%:*}" qdisc del dev "${link#*:}" root
  done
  return $result
}

# The raw bytes as the node decrypts them: WireGuard itself would accept a wrong checksum.
checksums_in_the_tunnel() {
  capture node wg0 checksums.pcap -Q in tcp || return 1
  download 4 www.example.org medium
  upload 4 www.example.org medium
  download 6 www.example.org medium
  answers 4 proxied.example.org header=198.51.100.9
  capture_end
  tcpdump -Z root -n -v -r checksums.pcap 2>/dev/null >checksums
  all=$(grep -c cksum checksums)
  wrong=$(grep -c incorrect checksums)
  echo "segments: $all, with a wrong checksum: $wrong"
  grep -m 3 -B 1 incorrect checksums
  [ "$all" -gt 500 ] && [ "$wrong" -eq 0 ]
}

# every_mode ROUNDS: connections of both families to pools of every mode.
every_mode() {
  for _ in $(seq "$1"); do
    answers 4 www.example.org from=198.51.100.9 || return 1
    answers 6 www.example.org from=2001:db8:9::9 || return 1
    answers 4 proxied.example.org header=198.51.100.9 || return 1
    answers 6 proxied.example.org header=2001:db8:9::9 || return 1
    answers 4 masqueraded.example.org from=10.8.0.1 || return 1
  done
}

# Linux 6.6 brought TCX; below it is clsact.
hook_fits_the_kernel() {
  IFS=. read -r major minor _ </proc/sys/kernel/osrelease
  hook=clsact
  if [ "$major" -gt 6 ] || { [ "$major" -eq 6 ] && [ "$minor" -ge 6 ]; }; then
    hook=tcx
  fi
  in_entrance forwarder status --json --bpffs /bpf/forwarder >status.json
  grep '"hook"' status.json
  [ "$(grep -ci "\"hook\": \"$hook\"" status.json)" -eq 2 ]
}

every_try_finds_the_living_node() {
  for try in 1 2 3 4 5 6; do
    answers 4 half-dead.example.org from=198.51.100.9 || return 1
  done
}

status_counts() {
  in_entrance forwarder status --json --bpffs /bpf/forwarder >status.json
  grep '"opened"' status.json
  grep -q '"opened": [1-9]' status.json
}

# handshakes COUNT: the age of the last handshake is known of so many nodes, and it is not large.
handshakes() {
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    in_entrance forwarder status --json --bpffs /bpf/forwarder >status.json
    known=$(grep -c '"handshake_age": [0-9]' status.json)
    [ "$known" -eq "$1" ] && break
    sleep 1
  done
  grep -e '"handshake_age"' -e '"has_peer"' -e '"source"' status.json
  # Nobody has the address 10.8.0.9: that node has no peer.
  [ "$known" -eq "$1" ] && grep -q '"source": "kernel"' status.json &&
    [ "$(grep -c '"has_peer": false' status.json)" -eq 1 ] &&
    ! grep -q '"handshake_age": [0-9][0-9][0-9][0-9]' status.json
}

# worn true|false SECONDS: the armour is, or is not, before so many seconds have passed.
worn() {
  for _ in $(seq "$2"); do
    in_entrance forwarder status --json --bpffs /bpf/forwarder >status.json
    grep -q "\"worn\": $1" status.json && return 0
    sleep 1
  done
  grep -A 30 '"armour"' status.json
  return 1
}

# armour on|off|auto [LINES]: `auto` is not on yet. A veth loses what XDP sends back unless its other end has a
# program too, so with `on` alone nobody connects; lab-flood brings such a program.
armour() {
  sed -e '/^xdp/d' -e '/^rst_rate/d' -e "s/^\[entrance\]/&\nxdp = \"$1\"\nxdp_veth = true$2/" forwarder.toml >changed.toml
  mv changed.toml forwarder.toml
  in_entrance forwarder reload --bpffs /bpf/forwarder || return 1
  [ "$1" = on ] && worn true 10 || worn false 10
}

# count SECTION KEY: a number of the last status, 0 where it is left out.
count() {
  found=$(sed -n "/\"$1\"/,/}/s/.*\"$2\": \([0-9]*\).*/\1/p" status.json)
  echo "${found:-0}"
}

# flood FAMILY: it begins while a long download is under way, and puts the armour on. It lasts longer than the
# download, which is slow enough to outlast all else that happens meanwhile.
flood() {
  case $1 in
    4) target=203.0.113.7:443 ;;
    6) target='[2001:db8:1::7]:443' ;;
  esac
  worn false 30
  calm=$?
  answered=$(count armour_frames answered) dropped=$(count armour_frames dropped)
  flows=$(count armour_frames flow) attached=$(count armour attached)
  rm -f long
  fetch "$1" www.example.org big -o long --limit-rate 700K --max-time 150 2>long.log &
  download=$!
  for _ in $(seq 20); do
    [ -s long ] && break
    sleep 1
  done
  hardware=$(in_entrance cat /sys/class/net/eth0/address)
  /bin/ip netns exec client lab-flood eth0 "$hardware" $target --seconds 50 --linger 60 >flood.log 2>&1 &
  flood=$!
  worn true 30 || { cat flood.log; return 1; }
  came=$(wc -c <long)
  echo "of the download had come: $came"
  [ $calm -eq 0 ] && [ "$came" -gt 0 ] && [ "$came" -lt 20000000 ]
}

# flooded COMMAND...: it succeeds, the armour is worn before and after it, and drops ACKs in between.
flooded() {
  worn true 1 || return 1
  first=$(count armour_frames dropped)
  "$@" || return 1
  worn true 1 || return 1
  echo "dropped meanwhile: from $first to $(count armour_frames dropped)"
  [ "$(count armour_frames dropped)" -gt "$first" ]
}

download_ends() {
  wait $download
  cat long.log
  sha256sum long www/big
  cmp long www/big
}

armour_counts() {
  worn true 1 || return 1
  answered=$(($(count armour_frames answered) - answered))
  dropped=$(($(count armour_frames dropped) - dropped))
  flows=$(($(count armour_frames flow) - flows))
  echo "answered: $answered, dropped: $dropped, of open flows: $flows"
  [ $answered -gt 500 ] && [ $dropped -gt 500 ] && [ $flows -gt 50 ]
}

# The client's XDP program stays until then, or the last to connect would not hear the armour.
armour_comes_off() {
  worn false 90
  result=$?
  kill -TERM $flood
  wait $flood
  cat flood.log
  echo "put on: $(count armour attached), before: $attached"
  [ $result -eq 0 ] && [ "$(count armour attached)" -eq $((attached + 1)) ]
}

# ---- the run ------------------------------------------------------------------------------------
network >network.log 2>&1 || { cat network.log; die "the network could not be made"; }
servers >servers.log 2>&1 || { cat servers.log; die "nginx did not start"; }
configuration
in_entrance forwarder check --config forwarder.toml || die "the configuration is refused"
start || die "forwarder did not start"

check "attached by what this kernel has" hook_fits_the_kernel
check "IPv4: a listed name answers, and the node sees the client's address" \
  answers 4 www.example.org from=198.51.100.9
check "IPv6: the same" answers 6 www.example.org from=2001:db8:9::9
check "a wildcard name" answers 4 shop.apps.example.org name=shop.apps.example.org
check "PROXY protocol v2, IPv4" answers 4 proxied.example.org header=198.51.100.9
check "PROXY protocol v2, IPv6" answers 6 proxied.example.org header=2001:db8:9::9
check "masquerade: the node sees the entrance" answers 4 masqueraded.example.org from=10.8.0.1
check "an unlisted name gets the TLS alert" refused other.example.org
check "a hello without a name is refused" no_name_is_refused
check "what is not TLS is refused" not_tls_is_refused
check "nothing of a refused name in the tunnel" nothing_of_a_refused_name_in_the_tunnel
check "a hello in many segments" hello_in_pieces
check "20 MB down, IPv4" download 4 www.example.org big
check "20 MB up, IPv4" upload 4 www.example.org big
check "20 MB down, IPv6, PROXY protocol" download 6 proxied.example.org big
check "raw checksums in the tunnel" checksums_in_the_tunnel
check "2 % loss on both links, both ways: every connection gets through" lossy 2 every_mode 4
check "2 % loss, 3 MB down, IPv4" lossy 2 download 4 www.example.org medium
check "2 % loss, 600 KB up, IPv6, PROXY protocol" lossy 2 upload 6 proxied.example.org small
check "5 % loss, 600 KB up" lossy 5 upload 4 www.example.org small
check "a dead node is passed over" every_try_finds_the_living_node
check "status counts what happened" status_counts
check "status knows when WireGuard peers shook hands" handshakes 4
check "the armour is verified and put on by the driver" armour on
check "and taken off" armour off
check "after it connections go on" answers 4 www.example.org from=198.51.100.9
# The usual limit would let a reset answer each stray ACK of so small a flood.
check "the armour waits for a flood" armour auto '\nxdp_above = 100\nxdp_calm = "3s"\nrst_rate = 10'
for family in 4 6; do
  check "IPv$family: a flood of SYNs and ACKs puts it on" flood $family
  check "while it is worn, new connections, IPv4" flooded answers 4 www.example.org from=198.51.100.9
  check "the same, IPv6" flooded answers 6 www.example.org from=2001:db8:9::9
  check "a download from before goes on, byte for byte" flooded download_ends
  check "it answered and dropped" armour_counts
  check "after the flood it comes off by itself" armour_comes_off
  check "and connections go on, IPv4" answers 4 www.example.org from=198.51.100.9
  check "the same, IPv6" answers 6 www.example.org from=2001:db8:9::9
done

if [ $failed -gt 0 ]; then
  echo "the daemon's last words:"
  tail -n 20 forwarder.log | cut -c 1-300
fi
kill -TERM $forwarder
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
