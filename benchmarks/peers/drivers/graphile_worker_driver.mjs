// graphile-worker, as its performance page says: 24 jobs at once, a local queue (2,000; 500 was slower), completions
// in batches without delay.
import { Slot, inParts, load, many, now, numbers, pause, seconds, sleep, verb, warmUp } from './slot.mjs';

const { Logger, makeWorkerUtils, run } = load('graphile-worker');
const { Pool } = load('pg');

const CONCURRENCY = 24;
const logger = new Logger(() => () => {});
const pool = new Pool({ connectionString: process.env.DSN, max: CONCURRENCY + 1 });
pool.on('error', () => {});
const countDown = 'update joins set left_over = left_over - 1 where id = 1 returning left_over';

async function work() {
  const slot = new Slot();
  const taskList = {
    noop: async () => { slot.hit(); },
    late: async (payload) => { slot.hit(payload.sent); },
    chain: async (payload, helpers) => {
      slot.hit();
      if (payload.left > 1) await helpers.addJob('chain', { left: payload.left - 1 });
      else slot.end();
    },
    root: async (payload, helpers) => {
      await pool.query('insert into joins values (1, $1)', [payload.width]);
      await helpers.addJobs(many(payload.width, () => ({ identifier: 'child', payload: {} })));
    },
    child: async (payload, helpers) => {
      const { rows } = await pool.query(countDown);
      if (rows[0].left_over === 0) await helpers.addJob('join', {});
    },
    join: async () => { slot.end(); },
  };
  const worker = {
    concurrentJobs: CONCURRENCY,
    maxPoolSize: CONCURRENCY + 1,
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    pollInterval: 2000,
    localQueue: { size: 2000 },
  };
  const runner = await run({ preset: { worker }, pgPool: pool, taskList, logger, noHandleSignals: true, crontab: '' });
  process.on('SIGTERM', () => process.exit(0));
  setTimeout(() => console.log('READY'), 300);
  await runner.promise;
}

async function send() {
  const utils = await makeWorkerUtils({ pgPool: pool, logger });
  const chains = (number, left) => utils.addJobs(many(number, () => ({ identifier: 'chain', payload: { left } })));
  if (verb === 'chains' || verb === 'fan') {
    await chains(...warmUp);
    await sleep(pause);
  }
  const start = now();
  if (verb === 'setup') {
    await utils.migrate();
    await pool.query('create table joins (id integer primary key, left_over integer)');
  } else if (verb === 'dispatch') {
    await inParts(numbers[0], 10000, (size) => utils.addJobs(many(size, () => ({ identifier: 'noop', payload: {} }))));
    console.log(seconds(start));
  } else if (verb === 'latency') {
    for (let sent = 0; sent < numbers[0]; sent++) {
      await utils.addJob('late', { sent: String(now()) });
      await sleep(numbers[1]);
    }
  } else if (verb === 'chains') {
    await chains(...numbers);
    console.log(String(start));
  } else if (verb === 'fan') {
    await utils.addJob('root', { width: numbers[0] });
    console.log(String(start));
  }
  await utils.release();
  process.exit(0);
}

await (verb === 'worker' ? work() : send());
