// An image in the geometry of a network. On the same pixels the result is that of
// Pillow's resize, which the network was trained with: its antialiased filters, in whole
// numbers with as many bits, across first and then down. Pillow 13 goes down first where
// that is much less work: then levels differ by at most 1, but where bicubic goes beyond
// black or white.

const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(1 - Math.abs(x), 0) },
  bicubic: { support: 2, weight: cubic },
};

function cubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

const BITS = 22; // of the weights; with those of a byte and a sign they fill 32

/**
 * An image as the network takes it.
 *
 * @param {{width: number, height: number, data: Uint8Array | Uint8ClampedArray}} image
 *   opaque pixels, four bytes each: red, green, blue and one that is not read.
 * @param {object} preprocessing as in `labels.json`.
 * @returns {Uint8Array} [H, W, C] of the preprocessing's size.
 */
export function prepare(image, preprocessing) {
  const { size, resize_mode: mode, interpolation } = preprocessing;
  const [height, width] = size;
  const channels = preprocessing.gray ? 1 : 3;
  const inner = innerSize(image.width, image.height, preprocessing);
  const filter = FILTERS[interpolation];
  let pixels = withoutAlpha(image, preprocessing.gray);
  pixels = across(pixels, image.width, image.height, channels, inner[0], filter);
  pixels = down(pixels, inner[0], image.height, channels, inner[1], filter);
  if (mode === "stretch") return pixels;
  const left = before(inner[0] - width);
  const top = before(inner[1] - height);
  return cut(pixels, inner, channels, left, top, width, height);
}

function innerSize(wide, high, { size: [height, width], resize_mode: mode, resize }) {
  if (mode === "stretch") return [width, height];
  if (mode === "pad") {
    const scale = Math.min(width / wide, height / high);
    return [Math.max(1, round(wide * scale)), Math.max(1, round(high * scale))];
  }
  const short = Math.min(wide, high);
  return [Math.trunc((resize * wide) / short), Math.trunc((resize * high) / short)];
}

/** As Python rounds: a half to the even neighbor. */
function round(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Where to cut what is too large; below zero, black is added to what is small. */
function before(spare) {
  return spare > 0 ? round(spare / 2) : Math.trunc(spare / 2);
}

function withoutAlpha({ width, height, data }, gray) {
  const count = width * height;
  const pixels = new Uint8Array(count * (gray ? 1 : 3));
  for (let i = 0; i < count; i++) {
    const [red, green, blue] = [data[4 * i], data[4 * i + 1], data[4 * i + 2]];
    if (gray) {
      pixels[i] = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16;
    } else {
      pixels[3 * i] = red;
      pixels[3 * i + 1] = green;
      pixels[3 * i + 2] = blue;
    }
  }
  return pixels;
}

/** For each new pixel the first of the old ones that it sees, and their weights. */
function windows(length, target, { support, weight }) {
  const scale = length / target;
  const stretch = Math.max(scale, 1);
  const reach = support * stretch;
  return Array.from({ length: target }, (_, place) => {
    const center = (place + 0.5) * scale;
    const first = Math.max(Math.trunc(center - reach + 0.5), 0);
    const end = Math.min(Math.trunc(center + reach + 0.5), length);
    const weights = new Float64Array(end - first);
    let total = 0;
    for (let i = 0; i < weights.length; i++) {
      weights[i] = weight((i + first - center + 0.5) * (1 / stretch));
      total += weights[i];
    }
    const whole = Int32Array.from(weights, (value) => {
      const scaled = (value / total) * (1 << BITS);
      return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    });
    return { first, weights: whole };
  });
}

const HALF = 1 << (BITS - 1);

function toByte(sum) {
  return Math.min(Math.max(sum >> BITS, 0), 255);
}

function across(pixels, width, height, channels, target, filter) {
  const found = new Uint8Array(target * height * channels);
  const seen = windows(width, target, filter);
  let next = 0;
  for (let y = 0; y < height; y++) {
    for (const { first, weights } of seen) {
      const start = (y * width + first) * channels;
      for (let c = 0; c < channels; c++) {
        let sum = HALF;
        for (let i = 0; i < weights.length; i++) {
          sum += pixels[start + i * channels + c] * weights[i];
        }
        found[next++] = toByte(sum);
      }
    }
  }
  return found;
}

function down(pixels, width, height, channels, target, filter) {
  const row = width * channels;
  const found = new Uint8Array(row * target);
  let next = 0;
  for (const { first, weights } of windows(height, target, filter)) {
    const start = first * row;
    for (let x = 0; x < row; x++) {
      let sum = HALF;
      for (let i = 0; i < weights.length; i++) {
        sum += pixels[start + i * row + x] * weights[i];
      }
      found[next++] = toByte(sum);
    }
  }
  return found;
}

function cut(pixels, [wide, high], channels, left, top, width, height) {
  const found = new Uint8Array(width * height * channels);
  for (let y = Math.max(0, -top); y < Math.min(height, high - top); y++) {
    const from = Math.max(0, -left);
    const to = Math.min(width, wide - left);
    const start = (y + top) * wide + left;
    found.set(
      pixels.subarray((start + from) * channels, (start + to) * channels),
      (y * width + from) * channels,
    );
  }
  return found;
}
