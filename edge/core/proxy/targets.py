"""Where a request goes whose sender may send it (RFC 3261 section 16.5). PURE.

a domain of ours  --> bindings, aliases followed | 302 | 480
                  --> a GRUU: those of its phone | 480 | 404 for one that we never gave, or that has ended
                  --> nobody in the tables --> authsvc: a user, or the one who has the number
                  --> nobody at all --> a gateway's number | 404
elsewhere         --> the live binding whose Contact it is (RFC 5589 section 6: an attended transfer names one)
                  --> nobody's --> for our own users, by RFC 3263
a binding elsewhere than its phone's flow --> by RFC 3263 (`edge.core.proxy.elsewhere`)
"""

from collections.abc import Callable, Iterable

from edge.core import response
from edge.core.actions import Binding, Location, LookUp, NextHop, Publish, Resolve, is_contact
from edge.core.addresses import spelled
from edge.core.answers import Answers
from edge.core.call_events.telling import Telling
from edge.core.commands import encoded
from edge.core.flow import Way
from edge.core.gateways.routes import ByGateway, Gateways
from edge.core.pending import Pending
from edge.core.proxy.context import Context
from edge.core.proxy.elsewhere import ByContact, Elsewhere, Fork
from edge.core.proxy.forwarding import Proxy
from edge.core.proxy.identity import rows_that_go_on
from edge.core.proxy.target_set import Target, of_bindings, of_phones, same_contact
from edge.core.proxy.waiting import NOBODYS, Call
from edge.core.senders import reached_by
from edge.core.tokens.path import FlowTokens
from events.commands import FindUser
from sipcore import proxy
from sipcore.errors import ParseError
from sipcore.uri import Uri, aor, equal, parse_uri

SECONDS = 5.0
"""What a look-up or a name may take in the end; whoever is asked answers sooner."""


class OwnBindings:
    """A look-up of the caller's own bindings, while the log is away."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call = call


class Seeking:
    """A look-up of a Contact for who says what is done with it."""

    __slots__ = ("then",)

    def __init__(self, then: Callable[[Location, float], None]) -> None:
        self.then = then


class Resolving:
    """The URIs by which a call may go, each resolved in its turn."""

    __slots__ = ("call", "gateway", "rest", "uri", "ways")

    def __init__(self, call: Call, uris: Iterable[tuple[str, str]]) -> None:
        """`uris`, each with the name of its gateway; "" for none."""
        self.call = call
        self.gateway = ""
        """Whose the URI is; nothing else may lead to a gateway."""
        self.uri = ""
        self.rest = list(uris)
        self.ways: list[Way] = []


Asking = Call | Context | OwnBindings | Seeking | Resolving | ByContact


class Destinations:
    """Finds the targets of calls and begins to send to them."""

    def __init__(
        self, answers: Answers, tokens: FlowTokens, proxy: Proxy, asked: Pending[str, Call], gateways: Gateways
    ) -> None:
        self._answers = answers
        self._settings = answers.settings
        self._tokens = tokens
        self._proxy = proxy
        self._asked = asked
        self._looking = Pending[int, Asking](SECONDS)
        """By the number of the question."""
        self._gateways = gateways
        trusted = answers.settings.is_peer
        self.elsewhere = Elsewhere(answers, proxy.reach, lambda host: self._gateways.is_at(host) or trusted(host))

    def __len__(self) -> int:
        return len(self._looking)

    # --- who is called --------------------------------------------------------------------------------------------

    def locate(self, call: Call, now: float) -> None:
        """Asks who the target is, perhaps while authsvc is asked who the caller is."""
        call.dereference(self._answers)
        name = self._name_of(call)
        if name is not None:
            self._look_up(call, name, now)
        elif call.allowed:
            self.go_on(call, now)

    def _name_of(self, call: Call) -> str | None:
        """What is looked up: an AOR, or the Contact that a Request-URI elsewhere may be; None for neither."""
        target = call.target
        return self._aor_of(call) or (proxy.request_uri(target) if target.is_sip and target.host else None)

    def _aor_of(self, call: Call) -> str | None:
        """The canonical AOR of a Request-URI in a domain of ours; None if it is elsewhere."""
        target = call.target
        if target.scheme == "tel":
            domain = call.user.rpartition("@")[2] or self._settings.default_domain
            return self._settings.number(target.opaque, domain)
        served = self._answers.served(target.host, call.flow, target.port)
        if served is None or target.user is None:
            return None
        return aor(Uri("sip", target.user, None, served))

    def seek(self, contact: str, then: Callable[[Location, float], None], now: float) -> None:
        """Has the bindings of a Contact URI, or of an AOR, told, within about a second; none if nobody says in time."""
        self._look_up(Seeking(then), contact, now)

    def _look_up(self, asking: Call | Context | OwnBindings | Seeking, name: str, now: float) -> None:
        number = self._wait(asking, now)
        self._answers.actions.lookups.append(LookUp(number, name))
        if isinstance(asking, Call):
            asking.name, asking.look_up, asking.located = name, number, None
        elif isinstance(asking, Context):
            asking.look_up = number

    def _wait(self, asking: "Asking", now: float) -> int:
        number = self._answers.question()
        self._looking.wait(number, asking, now)
        return number

    def next_timer(self) -> float | None:
        """When `on_time` is next of use."""
        return self._looking.next_timer()

    def on_time(self, now: float) -> None:
        """Ends what nobody has answered: every call gets its final response (CHECKLIST Y34)."""
        for asking in self._looking.overdue(now):
            if isinstance(asking, Context):
                asking.look_up = 0
            elif isinstance(asking, Seeking):
                asking.then(Location("", away=True), now)
            else:
                call = asking if isinstance(asking, Call) else asking.call
                self._answers.drop("unanswered-question")
                if isinstance(asking, ByContact):
                    self._fork(asking, (), now)
                elif not call.context.final:
                    self._proxy.unavailable(call.context, now)

    def look_again(self, contexts: Iterable[Context], now: float) -> None:
        """Asks for new bindings of AORs that ring (Y10)."""
        for context in contexts:
            if context.aor and not context.look_up and not context.no_more:
                self._look_up(context, context.aor, now)

    def by_binding(self, call: Call, now: float) -> None:
        """The log is away: a caller whose flow is that of his live binding is believed (DESIGN, "Kafka away")."""
        if call.user:
            self._look_up(OwnBindings(call), call.user, now)
        else:
            self._proxy.unavailable(call.context, now)

    def located(self, number: int, found: Location, now: float) -> None:
        """What the tables say of an AOR."""
        asking = self._looking.take(number)
        if isinstance(asking, Context):
            asking.look_up = 0
            self._proxy.join(asking, of_phones(found.targets, self._tokens), now)
        elif isinstance(asking, Seeking):
            asking.then(found, now)
        elif isinstance(asking, OwnBindings):
            self._believe(asking.call, found, now)
        elif isinstance(asking, Call) and asking.look_up == number:
            asking.located = found
            if asking.allowed:
                self.go_on(asking, now)

    def _believe(self, call: Call, found: Location, now: float) -> None:
        if call.context.final:
            return
        hops = [target.ways[0].hop for target in of_bindings(found.targets, self._tokens)]
        edge, boot = self._answers.edge, self._answers.boot
        flow = reached_by(call.context.request, call.flow)
        if any(hop.edge == edge and hop.boot in ("", boot) and hop.flow == flow for hop in hops):
            self._answers.drop("believed-by-binding")
            call.allowed = call.believed = True
            self.go_on(call, now)
        else:
            self._proxy.unavailable(call.context, now)

    def go_on(self, call: Call, now: float) -> None:
        """The sender may: to the target, as soon as it is known."""
        context = call.context
        if context.final or context.cancelled:
            return
        if call.gruu == NOBODYS:
            self._proxy.answer(context, 404, now)
            return
        _told(call, call.located)
        name = self._name_of(call)
        if name is None:
            self._elsewhere(call, now)
            return
        if name != call.name:  # who calls decides in which domain a number is looked up
            self._look_up(call, name, now)
        found = call.located
        if found is None:
            return  # comes again when it is
        if is_contact(name):
            self._by_contact(call, name, found, now)
            return
        targets, elsewhere = self._phones(call, found)
        if (targets or elsewhere) and call.gruu is None and self._settings.redirects(name.rpartition("@")[2]):
            self._redirect(context, found, now)
        elif targets or elsewhere:
            context.aor = found.aor if call.gruu is None else ""  # no other phone joins
            self._ring(Fork(call, found.aor, targets, len(elsewhere)), elsewhere, now)
        elif found.away:
            self._proxy.unavailable(context, now)
        elif found.known or call.found:
            # A temporary GRUU ends with its phone's last binding, a public one does not (RFC 5627 section 5.3).
            self._proxy.answer(context, 404 if call.gruu is not None and call.gruu.given else 480, now)
        elif call.believed:
            self._proxy.unavailable(context, now)  # who it is would have to be asked of the log
        else:
            self._find(call, name, now)

    def _phones(self, call: Call, found: Location) -> tuple[list[Target], list[Binding]]:
        """The targets that are known, and the bindings elsewhere; of a GRUU one alone (RFC 5627 section 6.1)."""
        bindings = found.targets if call.gruu is None else call.gruu.among(found.targets)
        targets = of_phones(bindings, self._tokens)
        return (targets if call.gruu is None else targets[-1:]), [each for each in bindings if not each.path]

    def _ring(self, fork: Fork, elsewhere: Iterable[Binding], now: float) -> None:
        """The bindings of the one who is called, once it is known where those lead that are elsewhere."""
        for binding in elsewhere:
            number = self._wait(ByContact(fork, binding), now)
            self._answers.actions.resolves.append(Resolve(number, binding.contact))
        if not fork.left:
            self._begin(fork.call, fork.targets, now, fork.callee)

    def _by_contact(self, call: Call, contact: str, found: Location, now: float) -> None:
        """To the binding whose Contact was called, by its own flow.

        Of several users with one Contact, as in private networks, it is one of the caller's domain, then the first
        who came: nobody gets another's calls by registering his Contact.
        """
        domain = call.user.rpartition("@")[2]
        mine = [
            (owner.rpartition("@")[2] != domain, owner, binding)
            for owner, binding in zip(found.owners, found.targets, strict=True)
            if same_contact(binding.contact, contact)
        ]
        aor = min(mine, key=lambda each: each[0])[1] if mine else ""
        targets = of_phones((binding for _, owner, binding in mine if owner == aor), self._tokens)
        if targets:
            self._begin(call, targets, now, aor)
        elif found.away and spelled(call.target.host).endswith(".invalid"):
            self._proxy.unavailable(call.context, now)
        else:
            self._elsewhere(call, now)

    def _begin(self, call: Call, targets: Iterable[Target], now: float, callee: str = "") -> None:
        """`callee`: the AOR that they are of."""
        targets = list(targets)
        if isinstance(call.context.telling, Telling):
            call.context.telling.callee = call.context.telling.callee or callee
            call.context.telling.targets = [target.uri for target in targets]
        call.context.parties = (call.user, callee)
        call.context.domain = callee.rpartition("@")[2] or call.user.rpartition("@")[2]
        source = call.flow.remote_host
        call.context.rows = rows_that_go_on(call.context.request, call.user, self._settings, source)
        self._proxy.begin(call.context, targets, now)

    def _redirect(self, context: Context, found: Location, now: float) -> None:
        """302 with the contacts (RFC 3261 section 8.3; Y28)."""
        at = self._answers.clock.at(now) // 1000
        headers = [
            ("Contact", f"<{response.printable(each.contact)}>;expires={max(0, each.expires - at)}{_q(each.q)}")
            for each in found.targets
            if not _leads_back(each.contact, context.request.parsed_uri)
        ]
        self._proxy.answer(context, 302 if headers else 480, now, None, headers)

    # --- names and numbers that no table has ----------------------------------------------------------------------

    def _find(self, call: Call, name: str, now: float) -> None:
        """Authsvc is asked whether it is a user, or somebody's number."""
        call.found = True
        answers = self._answers
        id_ = answers.command_id()
        user, _, domain = name.rpartition("@")
        command = FindUser(id_, answers.reply_to(now), user, domain)
        self._asked.wait(id_, call, now)
        answers.actions.publishes.append(Publish(id_, name, encoded(command), "ramal.FindUser"))

    def found(self, call: Call, name: str | None, now: float) -> None:
        """Who is called so; None: nobody of ours."""
        if name is None and call.gruu is not None:
            self._proxy.answer(call.context, 404, now)
            return
        if name is None:
            self._by_gateway(call, now)
            return
        user, _, domain = name.rpartition("@")
        call.target = Uri(call.target.scheme if call.target.is_sip else "sip", user, None, domain)
        self._look_up(call, name, now)

    def _by_gateway(self, call: Call, now: float) -> None:
        """A gateway is our users' to call through, not a stranger's (CHECKLIST S10)."""
        number = call.target.opaque or call.target.user or ""
        ways: list[ByGateway] = []
        if call.user and not call.believed:
            ways = self._gateways.ways(number, call.user.rpartition("@")[2])
        if ways:
            self._resolve(Resolving(call, [(way.uri, way.gateway) for way in ways]), now)
        else:
            self._proxy.answer(call.context, 404, now)

    # --- elsewhere ------------------------------------------------------------------------------------------------

    def _elsewhere(self, call: Call, now: float) -> None:
        """Another domain: for our users only (Y08)."""
        if not call.user or not self._settings.relay or self._gateways.is_at(call.target.host):
            self._proxy.answer(call.context, 403, now, "Relaying Denied")
        elif call.target.is_sip and self._answers.us.has(call.target.host, call.flow):
            self._proxy.answer(call.context, 404, now)  # what else listens on our host is nobody's to reach through us
        elif call.target.is_sip:
            self._resolve(Resolving(call, [(str(call.target), "")]), now)
        else:
            self._proxy.answer(call.context, 404, now)

    def _resolve(self, resolving: Resolving, now: float) -> None:
        resolving.uri, resolving.gateway = resolving.rest.pop(0)
        self._answers.actions.resolves.append(Resolve(self._wait(resolving, now), resolving.uri))

    def resolved(self, number: int, hops: list[NextHop], now: float) -> None:
        """Where a URI leads."""
        resolving = self._looking.take(number)
        if isinstance(resolving, ByContact):
            self._fork(resolving, hops, now)
        if not isinstance(resolving, Resolving):
            return
        call = resolving.call
        if call.context.final or call.context.cancelled:
            return
        if resolving.gateway:
            self._gateways.learn(hop.host for hop in hops)
        elif any(self._gateways.is_at(hop.host) for hop in hops):
            self._proxy.answer(call.context, 403, now, "Relaying Denied")
            return
        ways = self.elsewhere.ways(hops, call, resolving.uri)
        resolving.ways += [way.through(resolving.gateway) for way in ways]
        if resolving.rest:
            self._resolve(resolving, now)
        elif resolving.ways:
            self._begin(call, (Target(resolving.ways[0].uri, resolving.ways),), now)
        else:
            self._proxy.answer(call.context, 404, now)

    def _fork(self, asking: ByContact, hops: Iterable[NextHop], now: float) -> None:
        """A Contact elsewhere leads there; the last one of a call begins it."""
        fork = self.elsewhere.resolved(asking, hops)
        context = fork.call.context
        if fork.left or context.final or context.cancelled:
            return
        if fork.targets:
            self._begin(fork.call, fork.targets, now, fork.callee)
        else:
            self._proxy.answer(context, 480, now)


def _told(call: Call, found: Location | None) -> None:
    """What is known by now of who calls whom, for what is told of the call."""
    telling = call.context.telling
    if isinstance(telling, Telling):
        telling.caller = call.user
        if found is not None and not found.owners and (found.known or found.targets or call.found):
            telling.callee = found.aor  # of whom the tables have no row yet, authsvc has said that it is a user


def _q(q: float) -> str:
    return f";q={q:g}" if 0 <= q <= 1 else ""


def _leads_back(contact: str, uri: Uri) -> bool:
    """Whether a contact is the very URI that was called, or none at all."""
    try:
        return equal(parse_uri(contact), uri)
    except ParseError:
        return True
