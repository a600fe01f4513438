// Draws the points of the map by WebGL 2: one buffer of places, one of looks, one call for all of them.
import type { Rgb } from "../lib/oklch";
import type { Window } from "./mapSpace";

/** How each point looks. */
export interface Looks {
  /** Colour of each point, as a place in `colours`. */
  group: Uint8Array;
  /** At most 256. */
  colours: readonly Rgb[];
  ground: Rgb;
  ring: Rgb;
  /** Group of points that lie below the others, smaller; null: none. */
  quiet: number | null;
  /** 0: faint, left out by a filter; 1: plain; 2: chosen. */
  standing: Uint8Array;
}

const vertexCode = `#version 300 es
layout(location = 0) in vec2 place;
layout(location = 1) in vec4 looks;
uniform vec4 window;
uniform float size;
uniform float edge;
flat out vec4 colour;
flat out float across;
void main() {
  vec2 at = (place - window.xy) * window.zw;
  gl_Position = vec4(at.x, -at.y, 0.0, 1.0);
  // The layer comes in the place of alpha, as 0 to 3 of 255.
  float layer = looks.a * 255.0;
  across = layer > 2.5 ? size + 4.0 : max(1.0, size * (layer > 1.5 ? 1.0 : layer > 0.5 ? 0.85 : 0.6)) + 2.0 * edge;
  gl_PointSize = across;
  colour = vec4(looks.rgb, layer);
}`;
// Smooth edges need blending, which is dear without a graphics card: only a map at rest has them.
const pointCode = `#version 300 es
precision highp float;
flat in vec4 colour;
flat in float across;
uniform vec3 ring;
uniform vec3 ground;
uniform float edge;
uniform float smoothly;
out vec4 shown;
void main() {
  float left = across * 0.5 - length(gl_PointCoord - 0.5) * across;
  float alpha = across > 3.0 ? clamp(left + 0.5, 0.0, 1.0) : 1.0;
  if (smoothly < 0.5 && alpha < 0.5) discard;
  // Chosen points have a ring; the others an edge of the ground's colour, by which one lies visibly over the next.
  vec3 around = colour.a > 2.5 ? ring : ground;
  float within = colour.a > 2.5 ? clamp(left - 1.5, 0.0, 1.0) : edge > 0.0 ? clamp(left - edge + 0.5, 0.0, 1.0) : 1.0;
  shown = vec4(mix(around, colour.rgb, within), smoothly > 0.5 ? alpha : 1.0);
}`;

/** Bytes of a point: two floats for its place, then red, green, blue and its standing. */
const pointBytes = 12;
/** Layers of points, each drawn over those before: left out by a filter, quiet, plain, chosen. */
const layers = 4;
/** Points at least so large, in CSS px, have an edge of the ground's colour, so wide. */
const edgedFrom = 4;
const edgeWidth = 0.8;
/** Share of a faint point's colour that is the ground's. */
const faintness = 0.78;

export class MapDrawing {
  private readonly gl: WebGL2RenderingContext;
  private program: WebGLProgram | null = null;
  private readonly where = new Map<string, WebGLUniformLocation | null>();
  private places: { x: Float32Array; y: Float32Array } | null = null;
  /** The points in an order without meaning, so that any first part of them is a fair sample. */
  private shuffled = new Uint32Array(0);
  private looks: Looks | null = null;
  /** How many points each layer has; they lie in the buffer in this order. */
  private counts = new Array<number>(layers).fill(0);

  /** null where the browser has no WebGL 2. */
  static on(canvas: HTMLCanvasElement): MapDrawing | null {
    const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false, stencil: false, powerPreference: "low-power" });
    return gl ? new MapDrawing(gl) : null;
  }

  private constructor(gl: WebGL2RenderingContext) {
    this.gl = gl;
    this.restore();
  }

  /** Make everything on the card, the first time and after the browser took it away. */
  restore(): void {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, code] of [[gl.VERTEX_SHADER, vertexCode], [gl.FRAGMENT_SHADER, pointCode]] as const) {
      const shader = gl.createShader(kind)!;
      gl.shaderSource(shader, code);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.isContextLost() && !gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program) ?? "shader");
    this.program = program;
    for (const name of ["window", "size", "ring", "ground", "edge", "smoothly"]) this.where.set(name, gl.getUniformLocation(program, name));
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, pointBytes, 0);
    gl.enableVertexAttribArray(1);
    gl.vertexAttribPointer(1, 4, gl.UNSIGNED_BYTE, true, pointBytes, 8);
    if (this.looks) this.setLooks(this.looks);
  }

  setPlaces(x: Float32Array, y: Float32Array): void {
    this.places = { x, y };
    this.looks = null;
    this.counts.fill(0);
    const order = Uint32Array.from({ length: x.length }, (_, point) => point);
    let state = 1;
    for (let last = order.length - 1; last > 0; last--) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      const other = Math.floor((state / 2 ** 32) * (last + 1));
      [order[last], order[other]] = [order[other]!, order[last]!];
    }
    this.shuffled = order;
  }

  /** The same points elsewhere. */
  movePlaces(x: Float32Array, y: Float32Array): void {
    this.places = { x, y };
    if (this.looks) this.setLooks(this.looks);
  }

  setLooks(looks: Looks): void {
    const { gl, places, shuffled } = this;
    const count = shuffled.length;
    if (!places || looks.group.length !== count) return;
    this.looks = looks;
    const layerOf = (point: number) => (looks.standing[point] === 1 && looks.group[point] === looks.quiet ? 1 : looks.standing[point]! && looks.standing[point]! + 1);
    const counts = new Array<number>(layers).fill(0);
    for (let point = 0; point < count; point++) counts[layerOf(point)]!++;
    const next = counts.map((_, layer) => counts.slice(0, layer).reduce((sum, one) => sum + one, 0));
    const byte = (part: number) => Math.round(255 * part);
    const plain = looks.colours.map((colour) => colour.map(byte));
    const faint = looks.colours.map((colour) => colour.map((part, i) => byte(part + (looks.ground[i]! - part) * faintness)));
    const floats = new Float32Array(3 * count);
    const bytes = new Uint8Array(floats.buffer);
    for (const point of shuffled) {
      const layer = layerOf(point);
      const at = next[layer]!++;
      floats[3 * at] = places.x[point]!;
      floats[3 * at + 1] = places.y[point]!;
      const colour = (layer ? plain : faint)[looks.group[point]!]!;
      bytes[pointBytes * at + 8] = colour[0]!;
      bytes[pointBytes * at + 9] = colour[1]!;
      bytes[pointBytes * at + 10] = colour[2]!;
      bytes[pointBytes * at + 11] = layer;
    }
    this.counts = counts;
    gl.bufferData(gl.ARRAY_BUFFER, bytes, gl.DYNAMIC_DRAW);
  }

  /**
   * `ratio`: pixels of the canvas per CSS px; `size`: of a point, in CSS px; `smoothly`: with soft edges;
   * `share`: of the points that are not chosen, a fair sample where it is below one.
   */
  draw(view: Window, width: number, height: number, { ratio, size, smoothly, share }: { ratio: number; size: number; smoothly: boolean; share: number }): void {
    const { gl, looks } = this;
    const across = Math.max(1, Math.round(width * ratio));
    const down = Math.max(1, Math.round(height * ratio));
    const canvas = gl.canvas as HTMLCanvasElement;
    if (canvas.width !== across || canvas.height !== down) {
      canvas.width = across;
      canvas.height = down;
    }
    gl.viewport(0, 0, across, down);
    const ground = looks?.ground ?? [1, 1, 1];
    gl.clearColor(ground[0], ground[1], ground[2], 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (!looks) return;
    gl.useProgram(this.program);
    gl.uniform4f(this.where.get("window")!, view.x, view.y, (2 * view.scale) / width, (2 * view.scale) / height);
    gl.uniform1f(this.where.get("size")!, Math.max(1, size * ratio));
    gl.uniform3f(this.where.get("ring")!, ...looks.ring);
    gl.uniform3f(this.where.get("ground")!, ...ground);
    gl.uniform1f(this.where.get("edge")!, size >= edgedFrom ? edgeWidth * ratio : 0);
    gl.uniform1f(this.where.get("smoothly")!, smoothly ? 1 : 0);
    if (smoothly) {
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    } else gl.disable(gl.BLEND);
    let [from, drawn] = [0, 0];
    this.counts.forEach((count, layer) => {
      const some = layer === layers - 1 ? count : Math.ceil(count * share);
      gl.drawArrays(gl.POINTS, from, some);
      from += count;
      drawn += some;
    });
    // For benchmarks/page.py: a frame rate says nothing without how much each frame shows.
    if (share < 1) canvas.dataset.drawnMoving = String(drawn);
  }
}
