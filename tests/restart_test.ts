/**
 * What PostgreSQL keeps over a restart, it keeps here, in all three ways to restart: the endpoint is
 * stopped and started, everything is, and Postgres is killed with transactions open.
 */
import { type TestNeon, testWithNeon } from "./harness.ts";
import { checkStructure } from "./restart/checks.ts";
import { type Connect, SUBJECTS } from "./restart/subjects.ts";

const RESTARTS: Record<string, (neon: TestNeon) => Promise<void>> = {
  "a stop of the endpoint": (neon) => neon.local.stopEndpoint("main"),
  "a stop of everything": async (neon) => {
    await neon.local.stop();
    await neon.local.start();
  },
  "kill -9 of Postgres": async (neon) => neon.killPostgres("main"),
};

for (const [name, restart] of Object.entries(RESTARTS)) {
  testWithNeon(`everything that PostgreSQL keeps is there after ${name}`, {}, async (neon) => {
    let main = await neon.local.startEndpoint("main");
    let sql = neon.connect(main);
    const connect: Connect = (database) => neon.connect(main, database);
    await sql`alter system set max_prepared_transactions = 5`;
    await neon.local.stopEndpoint("main");
    main = await neon.local.startEndpoint("main");
    sql = neon.connect(main);
    for (const subject of SUBJECTS) {
      await sql.unsafe(`create schema ${subject.name}`);
      await named(subject.name, subject.before(sql, connect));
    }
    await restart(neon);
    await neon.closeClients();
    const began = performance.now();
    main = await neon.local.startEndpoint("main");
    console.log(`started again in ${Math.round(performance.now() - began)} ms`);
    sql = neon.connect(main);
    for (const subject of SUBJECTS) await named(subject.name, subject.after(sql, connect));
    for (const database of ["postgres", "by_wal", "by_file"]) {
      const relations = await checkStructure(connect(database));
      console.log(`${relations} relations of ${database} checked`);
    }
  });
}

/** Awaits, and says in an error which subject it was. */
async function named(subject: string, work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (thrown) {
    throw new Error(`${subject}: ${thrown}`, { cause: thrown });
  }
}
