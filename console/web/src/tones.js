// Ringing, made by the browser itself: 425 Hz, 1 s of every 5, as in Brazil (and much of the world).
let context;
let timer;

/** Must be called while the user clicks something: browsers allow no sound before. */
export function allowSound() {
  context ??= new AudioContext();
  context.resume();
}

/** Rings from now on, loudly for a call that comes in and softly for one that goes out. */
export function ring(loud) {
  silence();
  const burst = () => {
    if (context?.state !== "running") return;
    const tone = new OscillatorNode(context, { frequency: 425 });
    const volume = new GainNode(context, { gain: loud ? 0.3 : 0.05 });
    tone.connect(volume).connect(context.destination);
    tone.start();
    tone.stop(context.currentTime + 1);
  };
  burst();
  timer = setInterval(burst, 5000);
}

export function silence() {
  clearInterval(timer);
}
