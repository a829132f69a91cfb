// HMAC-SHA-256 (RFC 2104, FIPS 180-4), as hexadecimal text. Browsers have it, but only on pages of https
// and localhost; a phone that opens this page by the address of the machine has neither.

const K = [];
const H = [];
for (let n = 2; K.length < 64; n += 1) {
  let prime = true;
  for (let divisor = 2; divisor * divisor <= n; divisor += 1) prime &&= n % divisor !== 0;
  if (!prime) continue;
  if (H.length < 8) H.push(fraction(n ** (1 / 2)));
  K.push(fraction(n ** (1 / 3)));
}

function fraction(number) {
  return ((number - Math.floor(number)) * 2 ** 32) | 0;
}

function sha256(bytes) {
  const blocks = Math.ceil((bytes.length + 9) / 64);
  const padded = new Uint8Array(blocks * 64);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 4, bytes.length * 8);
  const hash = Int32Array.from(H);
  const w = new Int32Array(64);
  const turn = (x, n) => (x >>> n) | (x << (32 - n));
  for (let block = 0; block < blocks; block += 1) {
    for (let i = 0; i < 16; i += 1) w[i] = view.getInt32(block * 64 + i * 4);
    for (let i = 16; i < 64; i += 1) {
      const s0 = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ (w[i - 15] >>> 3);
      const s1 = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ (w[i - 2] >>> 10);
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    let [a, b, c, d, e, f, g, h] = hash;
    for (let i = 0; i < 64; i += 1) {
      const s1 = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25);
      const first = (h + s1 + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
      const s0 = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22);
      const second = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((word, i) => { hash[i] += word; });
  }
  const digest = new DataView(new ArrayBuffer(32));
  hash.forEach((word, i) => digest.setInt32(i * 4, word));
  return new Uint8Array(digest.buffer);
}

export function hmac(key, text) {
  const encode = (value) => new TextEncoder().encode(value);
  const secret = encode(key).length > 64 ? sha256(encode(key)) : encode(key);
  const pad = (byte) => Uint8Array.from({ length: 64 }, (_, i) => (secret[i] ?? 0) ^ byte);
  const inner = sha256(new Uint8Array([...pad(0x36), ...encode(text)]));
  const outer = sha256(new Uint8Array([...pad(0x5c), ...inner]));
  return Array.from(outer, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
