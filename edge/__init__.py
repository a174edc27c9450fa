"""The edge: phones on one side, topics on the other. It speaks SIP and keeps nothing durable.

The core is one folder, and the folder is the purity rule: octets and the time in; octets, commands and drops out.
Inside it, the chapters of RFC 3261 are the file names. Four shells know the core and never each other.

core/         PURE
  dispatch      every message, reply and timer, to what knows it
  actions       what the core wants done, and what it is told
  settings      what does not change while the edge runs
  clock         the log's time
  flow          a way to reach one peer, and hops by it
  place         where a URI leads without DNS
  next_hops     what to ask DNS, in which order (RFC 3263)
  us            is this us?
  drain         what is done at the end
  addresses     IP addresses out of text
  deny          addresses that nothing is sent to, and SIP peers
  reach         by which hop this edge reaches an address (18.1.1)
  senders       where a Contact leads: to its sender, or elsewhere
  arrival       a request as it came
  pending       what is waited for, and how long
  rate          a token bucket per source
  credentials   which credentials count, and challenges (22)
  response      tags of responses, and where they go (18.2.2)
  commands      commands as records carry them
  answers       responses of our own
  tokens/       what only we can make
    path          flow tokens
    flow_names    what records have of a flow
    record_route  tokens of dialogs
    dialog        what they say
    branch        branches of our Vias
    gruu          URIs of one phone (RFC 5627)
    base32        how all of them are written
  registration/ RFC 3261 section 10
    register      challenged, asked of the log, answered
    contacts      what a REGISTER says, and the Contact rows of its 200
    completed     what is kept for retransmissions
    flows         which flows are phones'
    keepalive     pings of phones on UDP
    stun          Binding on the SIP port
  proxy/        RFC 3261 section 16
    requests      validation, and to whom a request goes (16.3)
    route         what is left of Route when ours is taken off (16.4)
    admission     who may (22.3)
    targets       where to (16.5)
    target_set    targets, and the ways to each
    elsewhere     Contacts that are not their phones' flows
    waiting       calls on their way to their targets
    context       response contexts and attempts
    forwarding    forking, and which response goes up (16.6, 16.7)
    outgoing      requests as they leave: Via, Record-Route (16.6)
    identity      who a caller says he is (RFC 3325)
    within        requests within a dialog
    remote        where those lead (12.2)
    acks          ACKs to 2xx (16.11)
    cancel        CANCEL, and ACK of failures (16.10)
    failures      time, transport errors, connections that go (16.8, 16.9)
  media/        SDP through rtpengine
    commands      its commands
    relay         which calls, which messages
  gateways/     the telephone network
    routes        which gateway a number goes by
    probes        which of them answer
    numbers       numbers by the domains' settings
  call_events/  what is told of a call
    facts         what messages say, as records have it
    telling       SIP facts in, events out
transport/    section 18
  layer         joins sockets and core
  udp, tcp, tls, websocket, handshake, websocket_frames
  connections   bounds and deadlines of streams
  listener      accepting
  dial          connecting
  reading       how much is read, and when
  turns         whose turn it is
  floods        what the kernel lets in
  deadlines     one timer for many
  proxy_protocol  a balancer's word on who speaks
mesh/         other edges
  mesh          this one's ways to them
  accepted      theirs to this one
  link, channel, frames, sealing
topics/       Kafka
  commands      out: auth.commands
  call_spool    out: calls
  replies       in: edge.replies
  lease         out: edge.leases
  neighbours    in: edge.leases
outside/      tables, DNS, rtpengine
  location      the query by which any edge routes
  lookups       many look-ups in one
  resolver      RFC 3263 over DNS
  rtpengine     its ng protocol over UDP
  bencode       its encoding
config        settings
metrics       what Prometheus hears of answers
wiring        the shells, joined
service       the edge of one process
"""
