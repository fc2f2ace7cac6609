// A model in the browser: one exported step, run in a loop with its state.

/** Load a model: its description (JSON) and its network (ONNX).
 *
 * @param {object} ort - The onnxruntime-web module.
 * @param {string} folder - URL of the folder with description.json and step.onnx.
 * @param {string[]} providers - Execution providers, such as ["wasm"].
 */
export async function loadModel(ort, folder, providers) {
  const description = await (await fetchOk(`${folder}/description.json`)).json();
  const bytes = await (await fetchOk(`${folder}/step.onnx`)).arrayBuffer();
  const session = await ort.InferenceSession.create(bytes, { executionProviders: providers });
  return new Model(ort, session, description);
}

async function fetchOk(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return response;
}

/** The size of an axis: a number, "batch", "height", "width" or "4*ceil(height/16)". */
export function axisSize(axis, sizes) {
  if (typeof axis === "number") return axis;
  if (axis in sizes) return sizes[axis];
  const [, factor, name, divisor] = /^(\d+)\*ceil\((\w+)\/(\d+)\)$/.exec(axis);
  return factor * Math.ceil(sizes[name] / divisor);
}

export class Model {
  constructor(ort, session, description) {
    this.ort = ort;
    this.session = session;
    this.description = description;
    this.channels = description.config.in_channels;
  }

  /** The state before the first frame, for frames of a size. */
  initialState(height, width) {
    const sizes = { batch: 1, height, width };
    return Object.fromEntries(
      this.description.states.map(({ name, shape }) => {
        const dims = shape.map((axis) => axisSize(axis, sizes));
        const zeros = new Float32Array(dims.reduce((a, b) => a * b, 1));
        return [name, new this.ort.Tensor("float32", zeros, dims)];
      }),
    );
  }

  /** Take one step: from a frame, values in [0, 1], to a forecast of the next one.
   *
   * @param {Float32Array} frame - Channels × height × width values.
   * @param {object} state - From initialState or the last step.
   * @returns {{frame: Float32Array, state: object}}
   */
  async step(frame, state, height, width) {
    const dims = [1, this.channels, height, width];
    const inputs = { frame: new this.ort.Tensor("float32", frame, dims), ...state };
    const outputs = await this.session.run(inputs);
    const next = this.description.states.map(({ name, next }) => [name, outputs[next]]);
    return { frame: outputs.prediction.data, state: Object.fromEntries(next) };
  }

  /** Forecast the frames that follow.
   *
   * @param {Float32Array[]} past - The input frames.
   * @param {number} horizon - Number of frames to forecast.
   * @param {(done: number, steps: number) => void} progress - Called after every step.
   * @returns {Promise<Float32Array[]>} The forecast, not clipped.
   */
  async forecast(past, horizon, height, width, progress = () => {}) {
    let state = this.initialState(height, width);
    const steps = past.length - 1 + horizon;
    const forecast = [];
    let frame;
    for (let t = 0; t < steps; t++) {
      ({ frame, state } = await this.step(past[t] ?? frame, state, height, width));
      if (t >= past.length - 1) forecast.push(frame);
      progress(t + 1, steps);
      await new Promise((resolve) => setTimeout(resolve)); // let the page react
    }
    return forecast;
  }
}

/** Squared error of two frames, summed over pixels; the first is clipped to [0, 1]. */
export function squaredError(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (Math.min(1, Math.max(0, a[i])) - b[i]) ** 2;
  return sum;
}
