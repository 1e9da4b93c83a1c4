// torch's CPU generator (Mersenne twister), so that a seed gives the masks that Python draws.

const BITS = (1n << 64n) - 1n;

function mix(number) {
  let z = (number + 0x9e3779b97f4a7c15n) & BITS;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & BITS;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & BITS;
  return z ^ (z >> 31n);
}

// unmask.randomness.derive; `use` is the first 8 bytes of the SHA-256 of its name.
function derive(use, ...key) {
  let state = use;
  for (const number of key) state = mix((state ^ (BigInt(number) & BITS)) & BITS);
  return mix(state) >> 1n;
}

const IMAGE = 0x0340af76ccd60561n; // of "image"
const RECONSTRUCT = 0x87d856c4375cb4f9n; // of "reconstruct"

// The generator of `unmask reconstruct RUN PICTURE --seed SEED` for its first picture.
export function generatorOf(seed) {
  const own = derive(IMAGE, seed, 0) % (1n << 31n);
  return new Generator(derive(RECONSTRUCT, own));
}

export class Generator {
  constructor(seed) {
    this.state = new Uint32Array(624);
    this.state[0] = Number(BigInt(seed) & 0xffffffffn); // torch uses the lower half
    for (let i = 1; i < 624; i++) {
      const last = this.state[i - 1] ^ (this.state[i - 1] >>> 30);
      this.state[i] = Math.imul(1812433253, last) + i;
    }
    this.position = 624;
  }

  // 32 random bits
  next() {
    if (this.position === 624) this.twist();
    let y = this.state[this.position++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  twist() {
    const s = this.state;
    for (let i = 0; i < 624; i++) {
      const y = (s[i] & 0x80000000) | (s[(i + 1) % 624] & 0x7fffffff);
      s[i] = s[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.position = 0;
  }

  // torch.rand: 24 bits, from 0 to below 1
  rand(count) {
    return Array.from({ length: count }, () => (this.next() & 0xffffff) / 2 ** 24);
  }

  // torch.randint(2**62)
  randint62() {
    const high = this.next();
    return ((BigInt(high) << 32n) | BigInt(this.next())) % (1n << 62n);
  }

  // torch.randperm
  randperm(count) {
    const order = Array.from({ length: count }, (_, i) => i);
    for (let i = 0; i < count - 1; i++) {
      const other = i + (this.next() % (count - i));
      [order[i], order[other]] = [order[other], order[i]];
    }
    return order;
  }
}
