// Node's twin of slot.py: the counters go to the shared file every millisecond while they change.
import fs from 'node:fs';
import { createRequire } from 'node:module';

export const load = createRequire(process.env.BENCH_HOME + '/driver.js');
export const warmUp = [2, 5]; // chains, and steps of each, that are dispatched before a flow whose time counts ...
export const pause = 500; // ... and milliseconds until they are surely done
export const now = () => process.hrtime.bigint();
export const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
export const verb = process.argv[2];
export const numbers = process.argv.slice(3).map(Number);
export const seconds = (since) => Number(now() - since) / 1e9;
export const many = (count, make) => Array.from({ length: count }, (_, number) => make(number));

export async function inParts(count, size, send) {
  for (let at = 0; at < count; at += size) await send(Math.min(size, count - at));
}

export class Slot {
  constructor() {
    this.at = Number(process.env.BENCH_SLOT || 0) * 64;
    this.file = fs.openSync(process.env.BENCH_SLOTS, 'r+');
    this.buffer = Buffer.alloc(32);
    this.calls = 0;
    this.ends = 0;
    this.first = 0n;
    this.last = 0n;
    this.wanted = Number(process.env.BENCH_WANTED || 0);
    this.taken = [];
    this.changed = false;
    setInterval(() => { if (this.changed) this.write(); }, 1).unref();
  }

  hit(sent) {
    this.last = now();
    this.calls += 1;
    if (sent) {
      this.taken.push(this.last - BigInt(sent));
      if (this.taken.length === this.wanted) fs.writeFileSync(process.env.BENCH_LATENCIES, this.taken.join('\n'));
    }
    this.changed = true;
    if (!this.first) {
      this.first = this.last;
      this.write();
    }
  }

  end() {
    this.last = now();
    this.ends += 1;
    this.write();
  }

  write() {
    this.buffer.writeBigInt64LE(BigInt(this.calls), 0);
    this.buffer.writeBigInt64LE(this.first, 8);
    this.buffer.writeBigInt64LE(this.last, 16);
    this.buffer.writeBigInt64LE(BigInt(this.ends), 24);
    fs.writeSync(this.file, this.buffer, 0, 32, this.at);
    this.changed = false;
  }
}
