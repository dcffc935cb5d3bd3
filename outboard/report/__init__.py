"""What a job found and did, put together for people and programs."""
