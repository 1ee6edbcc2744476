// Which faults this page has. Name to value, which is null where a fault takes none.

export const faults = new Map();
