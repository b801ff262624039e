/** The tables of latencies, on the pages of health and of a stream. */

import { percent } from "./pure/format";
import { duration, type Latency } from "./pure/latency";
import { Table } from "./ui";

const used = (burn: number | null) => <td class={(burn ?? 0) > 1 ? "over" : ""}>{burn === null ? "–" : percent(burn)}</td>;

export function Latencies({ of }: { of: Latency | null }) {
  if (!of?.hops.length) return null;
  return (
    <>
      <Table label="Latency, over the last minutes" columns={["Part of the way", "p50", "p99", "Measured"]}>
        {of.hops.map(({ hop, name, count, p50Ms, p99Ms }) => (
          <tr key={hop}>
            <th scope="row">{name}</th>
            <td>{duration(p50Ms)}</td>
            <td>{duration(p99Ms)}</td>
            <td>{count}</td>
          </tr>
        ))}
      </Table>
      <Table label="Objectives: 99 of 100 within" columns={["Objective", "Within", "Budget used, 5 min", "1 h"]}>
        {of.objectives.map(({ hop, name, objectiveMs, burn5m, burn1h }) => (
          <tr key={hop}>
            <th scope="row">{name}</th>
            <td>{duration(objectiveMs)}</td>
            {used(burn5m)}
            {used(burn1h)}
          </tr>
        ))}
      </Table>
      <p class="dim">{of.clock?.says}</p>
    </>
  );
}
