// Boxes: from the frame to the photo and back, at the edges, in addresses, on the encoder's square.
import { describe, expect, it } from "vitest";
import {
  boxBetween, boxText, fitted, isLarge, moveBox, onPhoto, parseBox, partOnPhoto, resizeBox, squareAround, toFraction, toFrame, windowAround, within, type Box,
} from "./geometry";

const close = (box: readonly number[], expected: readonly number[]) =>
  expected.forEach((edge, index) => expect(box[index]).toBeCloseTo(edge, 6));

describe("letterboxing", () => {
  it("leaves bars above and below a wide photo, and beside a tall one", () => {
    expect(fitted({ width: 400, height: 400 }, { width: 500, height: 250 })).toEqual({ x: 0, y: 100, width: 400, height: 200 });
    expect(fitted({ width: 400, height: 400 }, { width: 250, height: 500 })).toEqual({ x: 100, y: 0, width: 200, height: 400 });
  });
  it("goes there and back", () => {
    const rect = fitted({ width: 731, height: 402 }, { width: 333, height: 500 });
    const place = { x: 0.21, y: 0.83 };
    const back = toFraction(toFrame(place, rect), rect);
    expect(back.x).toBeCloseTo(place.x, 9);
    expect(back.y).toBeCloseTo(place.y, 9);
  });
  it("takes what lies in the bars for the photo's edge", () => {
    const rect = fitted({ width: 400, height: 400 }, { width: 500, height: 250 });
    expect(toFraction({ x: 200, y: 10 }, rect)).toEqual({ x: 0.5, y: 0 });
    expect(toFraction({ x: 500, y: 390 }, rect)).toEqual({ x: 1, y: 1 });
  });
});

describe("boxes", () => {
  it("are the same whichever corner comes first", () => {
    close(boxBetween({ x: 0.8, y: 0.2 }, { x: 0.3, y: 0.6 }), [0.3, 0.2, 0.8, 0.6]);
  });
  it("keep their size when they are pushed against an edge", () => {
    close(moveBox([0.1, 0.1, 0.3, 0.5], -0.4, 0.9), [0, 0.6, 0.2, 1]);
  });
  it("stop before their other side when an edge is moved over it", () => {
    const box = resizeBox([0.2, 0.2, 0.4, 0.4], -1, 1, 0.9, -0.9);
    close(box, [0.36, 0.2, 0.4, 0.24]);
    expect(box[2] - box[0]).toBeCloseTo(0.04, 9);
    close(resizeBox([0.2, 0.2, 0.4, 0.4], 1, -1, -0.9, 0.9), [0.2, 0.36, 0.24, 0.4]);
  });
  it("stop at the photo's edge, and leave edges alone that are not held", () => {
    close(resizeBox([0.2, 0.2, 0.4, 0.4], 1, 0, 5, 5), [0.2, 0.2, 1, 0.4]);
  });
  it("are too small as long as one side is", () => {
    expect(isLarge([0.1, 0.1, 0.9, 0.12])).toBe(false);
    expect(isLarge([0.1, 0.1, 0.2, 0.2])).toBe(true);
  });
});

describe("addresses", () => {
  it("hold three digits and come back", () => {
    expect(boxText([0.123456, 0, 1, 0.5])).toBe("0.123,0,1,0.5");
    expect(parseBox("0.123,0,1,0.5")).toEqual([0.123, 0, 1, 0.5]);
  });
  it.each([null, "", "1,2", "0,0,1,2", "0.5,0,0.2,1", "a,b,c,d", "0,,1,1", "0,0,1,NaN"])("refuse %s", (text) => {
    expect(parseBox(text)).toBeNull();
  });
});

describe("the encoder's square", () => {
  const square: Box = [0.125, 0, 0.875, 1];
  it("lies on the photo", () => {
    expect(onPhoto({ x: 0, y: 0 }, square)).toEqual({ x: 0.125, y: 0 });
    expect(onPhoto({ x: 0.5, y: 1 }, square)).toEqual({ x: 0.5, y: 1 });
  });
  it("holds parts, also at its corner", () => {
    close(partOnPhoto({ x: 0.5, y: 0.5 }, 0.25, square), [0.40625, 0.375, 0.59375, 0.625]);
    close(partOnPhoto({ x: 0.02, y: 0.99 }, 0.25, square), [0.125, 0.75, 0.3125, 1]);
  });
  it("is made around a box in pixels, inside the photo", () => {
    const photo = { width: 400, height: 200 };
    const around = squareAround([0.9, 0.4, 1, 0.8], photo);
    close(around, [0.8, 0.4, 1, 0.8]);
    expect((around[2] - around[0]) * photo.width).toBeCloseTo((around[3] - around[1]) * photo.height, 9);
    close(squareAround([0, 0, 1, 1], photo), [0.25, 0, 0.75, 1]);
  });
});

describe("windows", () => {
  it("are as large as the photo allows and follow the box along the side that is cut", () => {
    close(windowAround([0.8, 0, 1, 0.2], { width: 300, height: 100 }, 1), [2 / 3, 0, 1, 1]);
    close(windowAround([0, 0.4, 1, 0.6], { width: 100, height: 200 }, 1), [0, 0.25, 1, 0.75]);
    close(windowAround([0.1, 0.1, 0.2, 0.2], { width: 400, height: 300 }, 4 / 3), [0, 0, 1, 1]);
  });
  it("hold boxes as fractions of themselves, as far as they lie inside", () => {
    close(within([0.25, 0.5, 0.5, 0.75], [0, 0.5, 0.5, 1]), [0.5, 0, 1, 0.5]);
    close(within([0.2, 0.1, 0.9, 0.9], [0.4, 0, 0.8, 1]), [0, 0.1, 1, 0.9]);
  });
});
