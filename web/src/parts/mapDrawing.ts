// Draws the points of the map by WebGL 2: one buffer of places, one of looks, one call for all of them.
import type { Window } from "./mapSpace";

export type Rgb = readonly [number, number, number];

/** How each point looks. */
export interface Looks {
  /** Colour of each point, as a place in `colours`. */
  group: Uint8Array;
  /** At most 32. */
  colours: readonly Rgb[];
  ground: Rgb;
  ring: Rgb;
  /** 0: faint, left out by a filter; 1: plain; 2: chosen. */
  standing: Uint8Array;
}

const vertexCode = `#version 300 es
layout(location = 0) in vec2 place;
layout(location = 1) in vec2 looks;
uniform vec2 middle;
uniform vec2 reach;
uniform float size;
uniform vec3 colours[32];
uniform vec3 ground;
flat out vec3 colour;
flat out float chosen;
flat out float across;
void main() {
  vec2 at = (place - middle) * reach;
  gl_Position = vec4(at.x, -at.y, 0.0, 1.0);
  chosen = looks.y > 1.5 ? 1.0 : 0.0;
  float faint = looks.y < 0.5 ? 1.0 : 0.0;
  across = faint > 0.5 ? max(1.0, size * 0.6) : chosen > 0.5 ? size + 4.0 : size;
  gl_PointSize = across;
  colour = mix(colours[int(looks.x)], ground, faint * 0.78);
}`;
// Smooth edges need blending, which is dear without a graphics card: only a map at rest has them.
const pointCode = `#version 300 es
precision mediump float;
flat in vec3 colour;
flat in float chosen;
flat in float across;
uniform vec3 ring;
uniform float smoothly;
out vec4 shown;
void main() {
  float left = across * 0.5 - length(gl_PointCoord - 0.5) * across;
  float alpha = across > 3.0 ? clamp(left + 0.5, 0.0, 1.0) : 1.0;
  if (smoothly < 0.5 && alpha < 0.5) discard;
  shown = vec4(mix(ring, colour, chosen > 0.5 ? clamp(left - 1.5, 0.0, 1.0) : 1.0), smoothly > 0.5 ? alpha : 1.0);
}`;

export class MapDrawing {
  private readonly gl: WebGL2RenderingContext;
  private program: WebGLProgram | null = null;
  private readonly where = new Map<string, WebGLUniformLocation | null>();
  private placeBuffer: WebGLBuffer | null = null;
  private looksBuffer: WebGLBuffer | null = null;
  private orderBuffer: WebGLBuffer | null = null;
  private count = 0;
  private places: { x: Float32Array; y: Float32Array } | null = null;
  private looks: Looks | null = null;

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
    for (const name of ["middle", "reach", "size", "colours", "ground", "ring", "smoothly"]) this.where.set(name, gl.getUniformLocation(program, name));
    this.looksBuffer = gl.createBuffer();
    this.orderBuffer = gl.createBuffer();
    this.placeBuffer = gl.createBuffer();
    const { places, looks } = this;
    if (places) this.setPlaces(places.x, places.y);
    if (looks) this.setLooks(looks);
  }

  setPlaces(x: Float32Array, y: Float32Array): void {
    const { gl } = this;
    this.places = { x, y };
    this.count = x.length;
    const both = new Float32Array(2 * x.length);
    for (let i = 0; i < x.length; i++) {
      both[2 * i] = x[i]!;
      both[2 * i + 1] = y[i]!;
    }
    gl.bindBuffer(gl.ARRAY_BUFFER, this.placeBuffer);
    gl.bufferData(gl.ARRAY_BUFFER, both, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    this.looks = null;
  }

  setLooks(looks: Looks): void {
    const { gl, count } = this;
    if (looks.group.length !== count) return;
    this.looks = looks;
    const bytes = new Uint8Array(2 * count);
    const order = new Uint32Array(count);
    // What counts more is drawn later, over the rest.
    let at = 0;
    for (const standing of [0, 1, 2]) {
      for (let i = 0; i < count; i++) if (looks.standing[i] === standing) order[at++] = i;
    }
    for (let i = 0; i < count; i++) {
      bytes[2 * i] = looks.group[i]!;
      bytes[2 * i + 1] = looks.standing[i]!;
    }
    gl.bindBuffer(gl.ARRAY_BUFFER, this.looksBuffer);
    gl.bufferData(gl.ARRAY_BUFFER, bytes, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(1);
    gl.vertexAttribPointer(1, 2, gl.UNSIGNED_BYTE, false, 0, 0);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.orderBuffer);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, order, gl.DYNAMIC_DRAW);
  }

  /** `ratio`: pixels of the canvas per CSS px; `size`: of a point, in CSS px; `smoothly`: with soft edges. */
  draw(view: Window, width: number, height: number, ratio: number, size: number, smoothly: boolean): void {
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
    if (!looks || !this.count) return;
    gl.useProgram(this.program);
    gl.uniform2f(this.where.get("middle")!, view.x, view.y);
    gl.uniform2f(this.where.get("reach")!, (2 * view.scale) / width, (2 * view.scale) / height);
    gl.uniform1f(this.where.get("size")!, Math.max(1, size * ratio));
    const colours = new Float32Array(96);
    looks.colours.slice(0, 32).forEach((colour, i) => colours.set(colour, 3 * i));
    gl.uniform3fv(this.where.get("colours")!, colours);
    gl.uniform3f(this.where.get("ground")!, ...ground);
    gl.uniform3f(this.where.get("ring")!, ...looks.ring);
    gl.uniform1f(this.where.get("smoothly")!, smoothly ? 1 : 0);
    if (smoothly) {
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    } else gl.disable(gl.BLEND);
    gl.drawElements(gl.POINTS, this.count, gl.UNSIGNED_INT, 0);
  }

  /** Wait for the card; used to tell how long a frame really takes. */
  finish(): void {
    this.gl.readPixels(0, 0, 1, 1, this.gl.RGBA, this.gl.UNSIGNED_BYTE, new Uint8Array(4));
  }
}
