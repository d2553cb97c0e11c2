/** Placeholder until the live view of a run is there. */
export function mountRun() {}
