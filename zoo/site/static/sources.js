// Clips from files: .npy arrays, GIFs and videos, as frames of gray values in [0, 1].

const MOST_FRAMES = 400;
const MOST_PIXELS = 2 ** 26; // of all frames together

/** Read a file as a clip {frames, height, width}; throws an Error with a message for the user. */
export async function readFile(file, size) {
  const name = file.name.toLowerCase();
  if (name.endsWith(".npy")) return readNpy(await file.arrayBuffer());
  if (name.endsWith(".gif")) return readGif(file, size);
  if (/\.(mp4|webm|mov|avi)$/.test(name)) return readVideo(file, size);
  throw new Error(`${file.name}: unknown type; expected .npy, .gif, .mp4 or .webm`);
}

/** Read an array of NumPy: (T, H, W) or (T, 1, H, W), uint8 or float32 in [0, 1]. */
export function readNpy(buffer) {
  const view = new DataView(buffer);
  const magic = String.fromCharCode(...new Uint8Array(buffer.slice(0, 6)));
  if (buffer.byteLength < 12 || magic !== "\x93NUMPY") throw new Error("not a .npy file");
  const long = view.getUint8(6) > 1;
  const start = long ? 12 : 10;
  const length = long ? view.getUint32(8, true) : view.getUint16(8, true);
  const header = new TextDecoder("latin1").decode(buffer.slice(start, start + length));
  const type = /'descr':\s*'([^']+)'/.exec(header)?.[1];
  const shape = (/'shape':\s*\(([^)]*)\)/.exec(header)?.[1] ?? "").match(/\d+/g)?.map(Number) ?? [];
  if (/'fortran_order':\s*True/.test(header)) throw new Error("Fortran order is not supported");
  if (shape.length === 4 && shape[1] === 1) shape.splice(1, 1);
  if (shape.length !== 3) throw new Error("expected an array (T, H, W) or (T, 1, H, W)");
  const types = { "|u1": [Uint8Array, 255], "<f4": [Float32Array, 1], "<f8": [Float64Array, 1] };
  if (!(type in types)) throw new Error(`values are ${type}; expected uint8, float32 or float64`);
  const [Values, top] = types[type];
  const [count, height, width] = shape;
  checkSize(count, height, width);
  const bytes = buffer.slice(start + length);
  if (bytes.byteLength < count * height * width * Values.BYTES_PER_ELEMENT) {
    throw new Error("the file is truncated");
  }
  const values = new Values(bytes, 0, count * height * width);
  const pixels = height * width;
  const frames = Array.from({ length: count }, (_, t) =>
    Float32Array.from(values.subarray(t * pixels, (t + 1) * pixels), (x) => x / top),
  );
  return { frames, height, width };
}

async function readGif(file, size) {
  if (!("ImageDecoder" in globalThis)) throw new Error("this browser cannot read GIFs; use .npy");
  const decoder = new ImageDecoder({ data: await file.arrayBuffer(), type: "image/gif" });
  try {
    await decoder.completed;
    const count = decoder.tracks.selectedTrack?.frameCount ?? 0;
    checkSize(count, ...size);
    const frames = [];
    for (let frameIndex = 0; frameIndex < count; frameIndex++) {
      const { image } = await decoder.decode({ frameIndex });
      frames.push(grayOf(image, size));
      image.close();
    }
    return { frames, height: size[0], width: size[1] };
  } catch (error) {
    throw new Error(`${file.name}: cannot read this GIF (${error.message})`);
  } finally {
    decoder.close();
  }
}

async function readVideo(file, size, rate = 25) {
  const video = document.createElement("video");
  video.muted = true;
  video.src = URL.createObjectURL(file);
  try {
    await event(video, "loadeddata", file);
    const count = Math.min(MOST_FRAMES, Math.floor(video.duration * rate));
    checkSize(count, ...size);
    const frames = [];
    for (let t = 0; t < count; t++) {
      video.currentTime = (t + 0.5) / rate;
      await event(video, "seeked", file);
      frames.push(grayOf(video, size));
    }
    return { frames, height: size[0], width: size[1] };
  } finally {
    URL.revokeObjectURL(video.src);
  }
}

function event(video, name, file) {
  return new Promise((resolve, reject) => {
    video.addEventListener(name, resolve, { once: true });
    const fail = () => reject(new Error(`${file.name}: this browser cannot read this video`));
    video.addEventListener("error", fail, { once: true });
  });
}

function checkSize(count, height, width) {
  if (count < 2) throw new Error(`the clip has ${count} frames; expected 2 or more`);
  if (count > MOST_FRAMES || count * height * width > MOST_PIXELS || !height || !width) {
    throw new Error(`the clip is too large (${count} frames of ${height} × ${width})`);
  }
}

/** Draw a picture at a size, and return its gray values. */
function grayOf(image, [height, width]) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const gray = new Float32Array(height * width);
  for (let i = 0; i < gray.length; i++) {
    gray[i] = (0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]) / 255;
  }
  return gray;
}

/** Digits that move in a box and bounce off its walls, as in Moving MNIST. */
export class Throwing {
  /** @param {{ink: Float32Array, x: number, y: number, dx: number, dy: number}[]} digits -
   *    28 × 28 drawings with positions and velocities in pixels a frame. */
  constructor(digits, size = 64, side = 28) {
    Object.assign(this, { digits, size, side });
  }

  /** Draw the current frame, then move on. */
  next() {
    const { size, side } = this;
    const frame = new Float32Array(size * size);
    for (const digit of this.digits) {
      const [left, top] = [Math.round(digit.x), Math.round(digit.y)];
      for (let row = 0; row < side; row++) {
        for (let column = 0; column < side; column++) {
          const at = (top + row) * size + left + column;
          frame[at] = Math.max(frame[at], digit.ink[row * side + column]);
        }
      }
      for (const [place, speed] of [["x", "dx"], ["y", "dy"]]) {
        digit[place] += digit[speed];
        const most = size - side;
        if (digit[place] < 0 || digit[place] > most) {
          digit[speed] = -digit[speed];
          digit[place] = Math.min(most, Math.max(0, digit[place]));
        }
      }
    }
    return frame;
  }

  clip(count) {
    const frames = Array.from({ length: count }, () => this.next());
    return { frames, height: this.size, width: this.size };
  }
}
