// The phone: one registration and at most one call, by JsSIP. It knows nothing of the page.
//
// `state` is what there is to show; `changed(state)` is called after each change of it:
//   line     "off" | "connecting" | "ready" | "away"
//   user     the address of who is registering or registered, "" otherwise
//   problem  null, or [key in words.json, detail]
//   missed   calls that nobody here answered, the newest first: { peer, address, at }; at: ms
//   call     null, or { peer, address, phase, video, since, muted, cameraOff, local, remote }
//            phase: "asking" | "calling" | "ringing" | "incoming" | "connecting" | "talking"; since: ms, when talking
import JsSIP from "jssip";
import { capture, NoMedia, release } from "./media.js";

const AGAIN = 5000; // ms until a registration that the server could not do is tried again
const GATHERING = 1000; // ms from the first address of ours that is found until the others are not waited for
const WRONG = [401, 403, 404, 407];
const MISSED = 20; // missed calls that are remembered
const REFUSALS = {
  401: "notAllowed",
  403: "notAllowed",
  404: "notFound",
  407: "notAllowed",
  408: "noAnswer",
  410: "unavailable",
  415: "noMediaInCommon",
  430: "unavailable",
  480: "unavailable",
  484: "badCallee",
  486: "busy",
  487: "unavailable",
  488: "noMediaInCommon",
  503: "serverBusy",
  600: "busy",
  603: "rejected",
  604: "notFound",
  606: "noMediaInCommon",
};
const { causes } = JsSIP.C;

export class Phone {
  #changed;
  #ua = null;
  #session = null;
  #stream = null;
  #again = 0;
  state = { line: "off", user: "", problem: null, missed: [], call: null };

  constructor(changed) {
    this.#changed = changed;
  }

  #set(change) {
    Object.assign(this.state, change);
    this.#changed(this.state);
  }

  #setCall(change) {
    if (this.state.call) this.#set({ call: { ...this.state.call, ...change } });
  }

  // --- the registration ---------------------------------------------------------

  register({ websocket, domain, name, password }) {
    const [user, host = domain] = name.trim().replace(/^sip:/i, "").split("@");
    const uri = JsSIP.URI.parse(`sip:${user}@${host}`);
    if (!uri) return this.#set({ problem: ["badName"] });
    const ua = (this.#ua = new JsSIP.UA({
      sockets: [new JsSIP.WebSocketInterface(websocket)],
      uri: uri.toString(),
      authorization_user: uri.user,
      password,
      register_expires: 300,
      connection_recovery_max_interval: 10,
      user_agent: "Ramal softphone",
    }));
    const ours = (handle) => (event) => {
      if (this.#ua === ua) handle(event);
    };
    ua.on("registered", ours(() => this.#set({ line: "ready", problem: null })));
    ua.on("registrationFailed", ours((event) => this.#notRegistered(event.response)));
    ua.on("disconnected", ours(() => this.#set({ line: "away", problem: ["notReachable"] })));
    ua.on("newRTCSession", ours((event) => event.originator === "remote" && this.#incoming(event)));
    this.#set({ line: "connecting", user: `${uri.user}@${uri.host}`, problem: null });
    ua.start();
  }

  #notRegistered(response) {
    const status = response?.status_code;
    if (WRONG.includes(status)) {
      const wait = status === 403 && parseInt(response.getHeader("Retry-After"), 10);
      this.signOut();
      this.#set({ problem: wait ? ["lockedOut", String(wait)] : ["wrongPassword"] });
    } else if (status || this.#ua.isConnected()) {
      this.#set({ line: "away", problem: ["busyServer"] });
      clearTimeout(this.#again);
      this.#again = setTimeout(() => this.#ua?.isConnected() && this.#ua.register(), AGAIN);
    } // else the connection is gone, and JsSIP makes a new one
  }

  signOut() {
    clearTimeout(this.#again);
    const ua = this.#ua;
    this.#ua = null;
    ua?.stop();
    this.#ended();
    this.#set({ line: "off", user: "", problem: null, missed: [] });
  }

  // --- calls --------------------------------------------------------------------

  async call(callee, video) {
    const target = this.#ua.normalizeTarget(callee.trim());
    if (!target) return this.#set({ problem: ["badCallee"] });
    if (`${target.user}@${target.host}` === this.state.user) return this.#set({ problem: ["yourself"] });
    this.#begin(this.#known(target), target, "asking", video);
    const stream = await this.#capture(video);
    if (!stream) return;
    this.#setCall({ phase: "calling" });
    this.#session = this.#ua.call(target, {
      mediaStream: stream,
      rtcOfferConstraints: { offerToReceiveAudio: true, offerToReceiveVideo: video },
      eventHandlers: this.#handlers(),
    });
  }

  #incoming({ session, request }) {
    if (this.state.call) return session.terminate({ status_code: 486 });
    const { display_name: name, uri } = session.remote_identity;
    this.#begin(name || this.#known(uri), uri, "incoming", /^m=video [1-9]/m.test(request.body ?? ""));
    for (const [event, handle] of Object.entries(this.#handlers())) session.on(event, handle);
    this.#session = session;
  }

  async answer(video) {
    this.#setCall({ phase: "asking", video });
    const stream = await this.#capture(video);
    if (!stream) return;
    this.#setCall({ phase: "connecting" });
    this.#session.answer({ mediaStream: stream });
  }

  /** How people call the one at this address: without the domain, if it is ours. */
  #known(uri) {
    return uri.host === this.#ua.configuration.uri.host && uri.user ? uri.user : `${uri.user ?? ""}@${uri.host}`;
  }

  #begin(peer, uri, phase, video) {
    const call = { peer, address: `${uri.user ?? ""}@${uri.host}`, phase, video, since: 0, muted: false, cameraOff: false };
    this.#set({ problem: null, call: { ...call, local: null, remote: new MediaStream() } });
  }

  /** The user's media; null if there is none (the problem is said) or the call has ended meanwhile. */
  async #capture(video) {
    const { call } = this.state;
    const stillWanted = () => this.state.call?.remote === call.remote;
    let problem = null;
    try {
      const stream = await capture(video, (key) => (problem = [key]));
      if (!stillWanted()) {
        release(stream);
        return null;
      }
      this.#stream = stream;
      this.#set({ problem });
      this.#setCall({ local: stream, video: stream.getVideoTracks().length > 0 });
      return stream;
    } catch (error) {
      if (!(error instanceof NoMedia)) throw error;
      if (!stillWanted()) return null;
      if (this.#session) this.#setCall({ phase: "incoming" }); // it may still be answered without a camera
      else this.#ended();
      this.#set({ problem: [error.key] });
      return null;
    }
  }

  #handlers() {
    const { peer, address, remote } = this.state.call;
    const ours = (handle) => (event) => {
      if (this.state.call?.remote === remote) handle(event);
    };
    const talking = ours(() => this.state.call.phase !== "talking" && this.#setCall({ phase: "talking", since: Date.now() }));
    let gathering = 0;
    return {
      peerconnection: ours(({ peerconnection }) => {
        peerconnection.addEventListener("connectionstatechange", ours(() => {
          if (peerconnection.connectionState !== "failed") return;
          this.hangUp();
          this.#set({ problem: ["lost"] });
        }));
        peerconnection.addEventListener("track", ours(({ track }) => {
          remote.addTrack(track);
          for (const event of ["mute", "unmute", "ended"]) track.addEventListener(event, ours(() => this.#setCall({})));
          this.#setCall({});
        }));
      }),
      // On a host with many networks the last address is found after half a minute.
      icecandidate: ({ ready }) => (gathering ||= setTimeout(ready, GATHERING)),
      progress: ours(({ originator }) => originator === "remote" && this.#setCall({ phase: "ringing" })),
      accepted: ours(({ originator }) => originator === "remote" && talking()),
      confirmed: talking,
      ended: ours(({ cause }) => this.#over(cause === causes.BYE ? null : ["lost"])),
      failed: ours((event) => {
        const problem = failure(event, peer);
        if (problem?.[0] === "missed") this.#missed(peer, address);
        this.#over(problem);
      }),
    };
  }

  #missed(peer, address) {
    this.#set({ missed: [{ peer, address, at: Date.now() }, ...this.state.missed].slice(0, MISSED) });
  }

  #over(problem) {
    this.#ended();
    this.#set({ problem });
  }

  #ended() {
    release(this.#stream);
    this.#stream = this.#session = null;
    this.#set({ call: null });
  }

  /** Hangs up, cancels or declines. */
  hangUp() {
    const session = this.#session;
    this.#ended();
    const declined = session?.direction === "incoming" && !session.isEstablished();
    if (session && !session.isEnded()) session.terminate(declined ? { status_code: 603 } : undefined);
  }

  toggleMute() {
    this.#toggle("muted", "audio");
  }

  toggleCamera() {
    this.#toggle("cameraOff", "video");
  }

  #toggle(name, kind) {
    const off = !this.state.call[name];
    this.#session[off ? "mute" : "unmute"]({ [kind]: true });
    this.#setCall({ [name]: off });
  }

  /** One digit, `*` or `#`, as RTP (RFC 4733). */
  press(key) {
    this.#session.sendDTMF(key, { transportType: JsSIP.C.DTMF_TRANSPORT.RFC2833 });
  }
}

/** What to say of a call that did not come about: [key, detail]; null if nothing. */
function failure({ originator, message, cause }, peer) {
  if (cause === causes.CANCELED) {
    const elsewhere = /cause=200/.test(message?.getHeader?.("Reason") ?? ""); // RFC 3326
    return originator === "remote" && !elsewhere ? ["missed", peer] : null;
  }
  if (originator === "local") return cause === causes.NO_ANSWER ? ["missed", peer] : null;
  const status = message?.status_code;
  if (status in REFUSALS) return [REFUSALS[status], peer];
  if (status >= 500 && status < 600) return ["serverFault"];
  if (cause === causes.CONNECTION_ERROR) return ["lost"];
  if (cause === causes.REQUEST_TIMEOUT || cause === causes.RTP_TIMEOUT) return ["unavailable", peer];
  return ["failed", peer];
}
