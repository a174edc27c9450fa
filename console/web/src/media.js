// Microphone and camera.

/** Why there is no microphone or camera: `key` names a text in words.json. */
export class NoMedia extends Error {
  constructor(key) {
    super(key);
    this.key = key;
  }
}

/**
 * Asks for the microphone and, if `video`, the camera. Throws NoMedia.
 * Without a camera it is the microphone alone, and `missing("noCamera")` is called.
 */
export async function capture(video, missing) {
  if (!navigator.mediaDevices) throw new NoMedia("insecure");
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: true, video });
  } catch (error) {
    if (video && ["NotFoundError", "OverconstrainedError"].includes(error.name)) {
      const stream = await capture(false, missing);
      missing("noCamera");
      return stream;
    }
    throw new NoMedia(reason(error.name, video));
  }
}

function reason(name, video) {
  if (name === "NotFoundError" || name === "OverconstrainedError") return "noMicrophone";
  if (name === "NotAllowedError" || name === "SecurityError") return video ? "cameraRefused" : "mediaRefused";
  return "mediaBusy";
}

/** Ends all tracks, so that the browser shows the camera as off. */
export function release(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}
