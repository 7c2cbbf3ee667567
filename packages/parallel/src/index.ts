// @lomo/parallel: schedules as data, the program that runs them, and the plan, which is the program run without data.
export * from './batch.ts';
export * from './carrier.ts';
export * from './plan.ts';
export * from './plan_contract.ts';
export * from './plan_timeline.ts';
export * from './program.ts';
export * from './residency.ts';
export * from './schedule.ts';
export * from './schedules/breadth_first.ts';
export * from './schedules/transfers.ts';
