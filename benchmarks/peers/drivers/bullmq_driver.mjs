// BullMQ: concurrency 300, bulk adds of 1,000; chains and fans are trees of its FlowProducer.
import { Slot, inParts, load, many, now, numbers, pause, seconds, sleep, verb, warmUp } from './slot.mjs';

const { FlowProducer, Queue, Worker } = load('bullmq');
const { Redis } = load('ioredis');

const [host, port] = process.env.REDIS.split(':');
const connect = () => new Redis({ host, port: Number(port), maxRetriesPerRequest: null });
const connection = connect();
const node = (name, children) => ({ name, queueName: 'bench', data: {}, children });

async function work() {
  const slot = new Slot();
  const handlers = {
    noop: async () => { slot.hit(); return {}; },
    late: async (job) => { slot.hit(job.data.sent); },
    last: async () => { slot.hit(); slot.end(); return {}; },
    join: async () => { slot.end(); return {}; },
  };
  const worker = new Worker('bench', (job) => handlers[job.name](job), { connection: connect(), concurrency: 300 });
  worker.on('error', console.error);
  process.on('SIGTERM', () => process.exit(0));
  await worker.waitUntilReady();
  setTimeout(() => console.log('READY'), 300);
}

// A chain's first step is the deepest child.
function chain(length) {
  let top = node('noop');
  for (let step = 2; step <= length; step++) top = node(step === length ? 'last' : 'noop', [top]);
  return top;
}

async function send() {
  const queue = new Queue('bench', { connection });
  await queue.waitUntilReady();
  const flows = new FlowProducer({ connection });
  const chains = (number, length) => flows.addBulk(many(number, () => chain(length)));
  if (verb === 'chains' || verb === 'fan') {
    await chains(...warmUp);
    await sleep(pause);
  }
  const start = now();
  if (verb === 'dispatch') {
    await inParts(numbers[0], 1000, (size) => queue.addBulk(many(size, () => ({ name: 'noop', data: {} }))));
    console.log(seconds(start));
  } else if (verb === 'latency') {
    for (let sent = 0; sent < numbers[0]; sent++) {
      await queue.add('late', { sent: String(now()) });
      await sleep(numbers[1]);
    }
  } else if (verb === 'chains') {
    await chains(...numbers);
    console.log(String(start));
  } else if (verb === 'fan') {
    await flows.add(node('join', many(numbers[0], () => node('noop'))));
    console.log(String(start));
  }
}

if (verb === 'worker') await work();
else {
  await (verb === 'setup' ? connection.flushall() : send());
  process.exit(0);
}
