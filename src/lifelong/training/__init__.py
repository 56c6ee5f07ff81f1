"""The stream learned task after task (loop), and what a task's training is made of: trainer, schedules, checkpoints."""
