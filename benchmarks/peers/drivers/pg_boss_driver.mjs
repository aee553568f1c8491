// pg-boss: bulk inserts, five pollers of 2,000 jobs a process, half a second between polls (its minimum).
import { Slot, inParts, load, many, now, numbers, pause, seconds, sleep, verb, warmUp } from './slot.mjs';

const { PgBoss } = load('pg-boss');
const { Pool } = load('pg');

const countDown = 'update joins set left_over = left_over - 1 where id = 1 returning left_over';
const pool = new Pool({ connectionString: process.env.DSN, max: 10 });
const boss = new PgBoss({ connectionString: process.env.DSN, max: 10, supervise: verb === 'worker', schedule: false });
boss.on('error', console.error);
pool.on('error', () => {});

async function work() {
  const slot = new Slot();
  const handlers = {
    noop: async () => { slot.hit(); },
    late: async (data) => { slot.hit(data.sent); },
    chain: async (data) => {
      slot.hit();
      if (data.left > 1) await boss.send('bench', { kind: 'chain', left: data.left - 1 });
      else slot.end();
    },
    root: async (data) => {
      await pool.query('insert into joins values (1, $1)', [data.width]);
      await boss.insert('bench', many(data.width, () => ({ data: { kind: 'child' } })));
    },
    child: async () => {
      const { rows } = await pool.query(countDown);
      if (rows[0].left_over === 0) await boss.send('bench', { kind: 'join' });
    },
    join: async () => { slot.end(); },
  };
  const options = { batchSize: 2000, pollingIntervalSeconds: 0.5 };
  for (let poller = 0; poller < 5; poller++) {
    await boss.work('bench', options, (jobs) => Promise.all(jobs.map(({ data }) => handlers[data.kind](data))));
  }
  process.on('SIGTERM', () => process.exit(0));
  setTimeout(() => console.log('READY'), 300);
  await new Promise(() => {});
}

async function send() {
  const chains = (number, left) => boss.insert('bench', many(number, () => ({ data: { kind: 'chain', left } })));
  if (verb === 'chains' || verb === 'fan') {
    await chains(...warmUp);
    await sleep(8 * pause); // five steps, a poll each
  }
  const start = now();
  if (verb === 'setup') {
    await boss.createQueue('bench');
    await pool.query('create table joins (id integer primary key, left_over integer)');
  } else if (verb === 'dispatch') {
    await inParts(numbers[0], 5000, (size) => boss.insert('bench', many(size, () => ({ data: { kind: 'noop' } }))));
    console.log(seconds(start));
  } else if (verb === 'latency') {
    for (let sent = 0; sent < numbers[0]; sent++) {
      await boss.send('bench', { kind: 'late', sent: String(now()) });
      await sleep(numbers[1]);
    }
  } else if (verb === 'chains') {
    await chains(...numbers);
    console.log(String(start));
  } else if (verb === 'fan') {
    await boss.send('bench', { kind: 'root', width: numbers[0] });
    console.log(String(start));
  }
  process.exit(0);
}

await boss.start();
await (verb === 'worker' ? work() : send());
