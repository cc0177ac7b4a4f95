/** `neon page get`: a page as the pageserver has it at an LSN, and how it was put together. */
import { Command } from "../command.ts";
import { PgClient } from "../../libs/pgwire/client.ts";
import { pageLines } from "../../libs/postgres/page_text.ts";
import { BadRequest, NotFound } from "../../libs/utils/errors.ts";
import { formatLsn } from "../../libs/utils/lsn.ts";
import type { PageExplanation } from "../../pageserver/client.ts";
import { pageserverClient } from "../control_plane/clients.ts";
import { LOOPBACK, MAIN_BRANCH } from "../control_plane/config.ts";
import { checkReadable } from "../control_plane/endpoint_modes.ts";
import { listEndpointRecords } from "../control_plane/endpoint_records.ts";
import { SUPERUSER } from "../control_plane/endpoints.ts";
import {
  type Environment,
  openEnvironment,
  tenantOf,
  timelineOfBranch,
} from "../control_plane/environment.ts";
import { withExamples } from "../help.ts";
import { count, lsn, tenantId } from "../options.ts";
import { printBytes, printJson, printLine } from "../output.ts";
import { BLOCK_MAX, fork, parseRelation, type RelationArgument } from "../wal_options.ts";

/** Where a table's or an index's pages are: its relfilenode as of now. */
const RELATION_QUERY = `
  select case when c.reltablespace = 0 then d.dattablespace else c.reltablespace end,
         case when c.relisshared then 0 else d.oid end, pg_relation_filenode(c.oid)
  from pg_class c, pg_database d
  where d.datname = current_database() and c.oid = `;

/** Asks a running endpoint of the timeline what files a relation is in. */
async function resolveName(
  env: Environment,
  timeline: string,
  name: string,
  database: string,
): Promise<RelationArgument> {
  for (const record of listEndpointRecords(env.repoDir)) {
    if (record.timeline_id !== timeline) continue;
    let client: PgClient;
    try {
      client = await PgClient.connect({ hostname: LOOPBACK, port: record.pg_port }, {
        user: SUPERUSER,
        database,
      });
    } catch (thrown) {
      if (thrown instanceof Deno.errors.ConnectionRefused) continue;
      throw thrown;
    }
    try {
      const { rows } = await client.query(
        `${RELATION_QUERY} '${name.replaceAll("'", "''")}'::regclass`,
      );
      const [spc, db, rel] = rows[0]!.map(Number) as [number, number, number];
      if (rel > 0) return { spc, db, rel, fork: undefined };
      throw new BadRequest(`Cannot read pages of "${name}": it has none of its own`);
    } finally {
      client.close();
    }
  }
  throw new NotFound(
    `Cannot find the relation "${name}": no endpoint of the branch runs; name it as spc/db/rel`,
  );
}

function explanationLines(found: PageExplanation): string[] {
  const lines = ["", "put together from:"];
  let layer = -1;
  for (const step of found.steps) {
    if (step.layer !== layer) {
      layer = step.layer;
      const from = found.layers[layer]!;
      lines.push(
        ` layer ${from.name} of timeline ${from.timeline_id}, ` +
          `LSN ${from.lsn_start} to ${from.lsn_end}`,
      );
    }
    const size = `${step.bytes} bytes`;
    lines.push(
      step.kind === "image"
        ? `   ${step.lsn.padEnd(17)}  image, ${size}`
        : `   ${step.lsn.padEnd(17)}  ${step.rmgr} ${step.opcode}, ${size}, tx ${step.xid}` +
          (step.makes_page ? ", makes the page" : ""),
    );
  }
  return lines;
}

function get() {
  const made = new Command("get")
    .description("print a page of a relation as of an LSN")
    .argument(
      "<relation>",
      "tablespace/database/relfilenode[_fork], or a name in a running endpoint",
    )
    .argument("<block>", "block number", count(0, BLOCK_MAX))
    .option("--lsn <lsn>", "as of this LSN (default: the last record)", lsn)
    .option("--branch <branch>", "of this branch", MAIN_BRANCH)
    .option("--tenant-id <tenant>", "which tenant (default: the default one)", tenantId)
    .option("-F, --fork <main|fsm|vm|init>", "which fork (default: main)", fork)
    .option("-d, --dbname <name>", "the database that a name is in", "postgres")
    .option("--explain", "print how the page was put together")
    .option("--raw", "write the 8192 bytes to standard output")
    .option("--json", "print JSON")
    .action(async (name, block, options) => {
      const env = openEnvironment();
      const tenant = tenantOf(env, options.tenantId);
      const timeline = timelineOfBranch(env, tenant, options.branch);
      const relation = parseRelation(name) ??
        await resolveName(env, timeline, name, options.dbname);
      if (options.lsn !== undefined) await checkReadable(env, tenant, timeline, options.lsn);
      const ofFork = options.fork ?? relation.fork ?? 0;
      const found = await pageserverClient(env).explainPage(
        tenant,
        timeline,
        { ...relation, fork: ofFork, block },
        options.lsn === undefined ? undefined : formatLsn(options.lsn),
      );
      const bytes = Uint8Array.fromBase64(found.page);
      if (options.raw) printBytes(bytes);
      else if (options.json) {
        printJson(found);
      } else {
        const of = `${found.relation} of ${found.relation_blocks} blocks`;
        printLine(`block ${found.block} of ${of}, at ${found.lsn}`);
        const explained = options.explain ? explanationLines(found) : [];
        printLine([...pageLines(bytes, ofFork), ...explained].join("\n"));
      }
    });
  return withExamples(
    made,
    ["neon page get t 0 --explain", "the first page of table t, with its history"],
    ["neon page get 1663/5/16384 3 --lsn 0/16F9A00 --branch dev"],
    ["neon page get pg_class 0 --fork vm --json"],
  );
}

/** The command. */
export function command(): Command {
  const made = new Command("page")
    .description("look at pages as of an LSN")
    .addCommand(get() as unknown as Command);
  return withExamples(made as unknown as Command, ["neon page get t 0 --explain"]);
}
